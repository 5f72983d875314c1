"""The last merge of every token of a merge list, worked out for a whole vocabulary at once.

A token is reached on its own by exactly one last merge, of two tokens that are reached on their own as well. Which of the
merges that spell it that is, is seen at the border between their parts: until the last merge, no other may fire across it.
Two neighbours meet at the border from the moment when both are there until one of them is merged away, so it is enough to
take the two parts apart again, the younger of both first, and to ask at every step whether the pair that stands at the
border would have merged before the merge that was just undone. Shorter tokens first, all tokens of a length together.

That holds where merges fire by rising rank inside a token. A token of which it does not hold, or may not, is left to
`route` (bpe.py), which runs the merges one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langslice.tokenizer.document import Merges

Ids = np.ndarray[Any, np.dtype[np.int32]]
Ranks = np.ndarray[Any, np.dtype[np.int64]]
UNREACHED, REACHED, OPEN = 0, 1, 2
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Splits:
    """How tokens come about; arrays are (tokens,).

    state        REACHED by one last merge, or a single symbol; UNREACHED by any; OPEN where only `route` can tell
    left, right  the two parts of the last merge of a token that is reached; -1 for a symbol
    by_length    ids of reached tokens of two or more symbols, those of a length together, the longest first
    """

    state: np.ndarray[Any, np.dtype[np.uint8]]
    left: Ids
    right: Ids
    by_length: tuple[Ids, ...]

    def needed(self, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Ids, Ids]:
        """Every token on the route of a chosen one, with the lowest chosen id that needs it: two arrays of one length.

        chosen   (m,) ids whose state is REACHED
        Returns  (n,) int32 each
        """
        nobody = len(self.state)
        owner = np.full(nobody, nobody, dtype=np.int32)
        owner[chosen] = chosen
        found = np.zeros(nobody, dtype=bool)
        for ids in self.by_length:
            ids = ids[owner[ids] < nobody]
            for part in (self.left[ids], self.right[ids]):
                np.minimum.at(owner, part, owner[ids])
                found[part] = True
        ids = np.flatnonzero(found).astype(np.int32)
        return ids, owner[ids]


class _Pairs:
    """The rank of a pair, by binary search: 16 bytes a merge."""

    def __init__(self, merges: Merges, size: int) -> None:
        keys = merges.left.astype(np.int64) * size + merges.right
        self._size = size
        self._ranks = np.argsort(keys, kind="stable")
        self._keys = keys[self._ranks]

    def ranks(self, left: Ids, right: Ids) -> Ranks:
        """(n,) ranks of n pairs; _NEVER for a pair that does not merge."""
        keys = left.astype(np.int64) * self._size + right
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._ranks[places], _NEVER)


def split_tokens(merges: Merges, symbols: np.ndarray[Any, np.dtype[np.int64]]) -> Splits:
    """Find the last merge of every token.

    merges   in ascending rank, one for each pair
    symbols  (tokens,) how many symbols spell a token; 0 where it is none that merges can lead to
    """
    size = len(symbols)
    state = np.where(symbols == 1, REACHED, UNREACHED).astype(np.uint8)
    left, right = np.full(size, -1, dtype=np.int32), np.full(size, -1, dtype=np.int32)
    rank_of = np.full(size, -1, dtype=np.int64)
    by_length: list[Ids] = []
    if len(merges.left):
        pairs = _Pairs(merges, size)
        real = np.flatnonzero((symbols[merges.left] > 0) & (symbols[merges.right] > 0) & (symbols[merges.product] > 1))
        lengths = symbols[merges.product[real]]
        order = real[np.argsort(lengths, kind="stable")]
        ends = np.cumsum(np.bincount(lengths)) if len(lengths) else np.zeros(0, dtype=np.int64)
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            ranks = order[start:end]
            one, other, product = merges.left[ranks], merges.right[ranks], merges.product[ranks]
            possible = (state[one] != UNREACHED) & (state[other] != UNREACHED)
            clear = possible & (state[one] == REACHED) & (state[other] == REACHED)
            clear &= ranks > np.maximum(rank_of[one], rank_of[other])
            state[product[possible & ~clear]] = OPEN
            tried = np.flatnonzero(clear)
            last = tried[_is_last(one[tried], other[tried], pairs, rank_of, left, right)]
            ids = product[last]
            state[ids], left[ids], right[ids], rank_of[ids] = REACHED, one[last], other[last], ranks[last]
            if len(ids):
                by_length.append(ids)
    return Splits(state, left, right, tuple(reversed(by_length)))


def _is_last(
    one: Ids, other: Ids, pairs: _Pairs, rank_of: Ranks, left: Ids, right: Ids
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n,) whether nothing merges across the border between each of n pairs of reached tokens before they are complete."""
    fine = np.ones(len(one), dtype=bool)
    at = np.arange(len(one))
    while len(at):
        first, second = rank_of[one], rank_of[other]
        whole = (first >= 0) | (second >= 0)  # two symbols cannot be taken apart
        at, one, other, first, second = at[whole], one[whole], other[whole], first[whole], second[whole]
        # Of two equal tokens the left one merges first, so the right one is the younger.
        younger = first > second
        undone = np.maximum(first, second)
        one, other = np.where(younger, right[one], one), np.where(younger, other, left[other])
        across = pairs.ranks(one, other)
        # Of two equal pairs the one on the left merges first.
        before = (across < undone) | ((across == undone) & ~younger)
        fine[at[before]] = False
        at, one, other = at[~before], one[~before], other[~before]
    return fine
