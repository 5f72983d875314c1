"""Byte-pair encoding: the merges that make a token on its own, and so the tokens that it needs.

A token inside any text was built by exactly the merges that build it alone: a merge across its border cannot have
fired, or the token would not be there. Keeping, for every kept token, the tokens on that route is therefore enough,
and it is the least that is enough: text that used kept tokens only is encoded as before.

Two kinds of rule lead to a token. A merge list (tokenizer.json, merges.txt) names the pairs that may join. A rank file
(tiktoken) or a SentencePiece BPE model joins any two neighbours whose concatenation is a token, lowest rank first. Both
kinds are walked here, since a folder may hold files of both.

This module does not tokenise text, and leaves added tokens, bytes and files to others.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from langslice.tokenizer.document import Merges

MergeRule = Callable[[int, int], "tuple[float, int] | None"]
"""(left id, right id) -> (rank, product id), None where the two never join."""


@dataclass(frozen=True)
class Spelling:
    """How a text becomes the symbols that merging starts from.

    index          token string -> id
    prefix         continuing_subword_prefix: is before every symbol of a word but the first
    suffix         end_of_word_suffix: is after the last symbol of a word
    byte_fallback  a character without a token becomes its UTF-8 bytes <0x00>..<0xFF>
    """

    index: Mapping[str, int]
    prefix: str = ""
    suffix: str = ""
    byte_fallback: bool = False

    def symbols(self, token: str) -> list[int] | None:
        """Ids that merging starts from when `token` stands alone; None where a character has no symbol."""
        ends = bool(self.suffix) and token.endswith(self.suffix) and token != self.suffix
        continues = bool(self.prefix) and token.startswith(self.prefix) and token != self.prefix
        text = token[len(self.prefix) if continues else 0 : -len(self.suffix) if ends else None]
        found: list[int] = []
        for place, character in enumerate(text):
            before = self.prefix if continues or place else ""
            after = self.suffix if ends and place == len(text) - 1 else ""
            symbol = self.index.get(before + character + after)
            if symbol is not None:
                found.append(symbol)
                continue
            if not self.byte_fallback:
                return None
            fallback = [self.index.get(f"<0x{byte:02X}>") for byte in (before + character + after).encode()]
            if None in fallback:
                return None
            found.extend(byte for byte in fallback if byte is not None)
        return found


def listed_merges(merges: Merges, size: int) -> MergeRule:
    """The rule of a merge list; binary search in 12 bytes a merge, where a dict would need 160."""
    keys = merges.left.astype(np.int64) * size + merges.right
    order = np.argsort(keys, kind="stable")
    sorted_keys, ranks = array("q", keys[order].tobytes()), array("q", order.tobytes())
    products = array("i", merges.product[order].tobytes())
    end = len(sorted_keys)

    def rule(left: int, right: int) -> tuple[float, int] | None:
        key = left * size + right
        place = bisect_left(sorted_keys, key)
        if place == end or sorted_keys[place] != key:
            return None
        return ranks[place], products[place]

    return rule


def ranked_merges(tokens: Sequence[str | None], index: Mapping[str, int], rank: Callable[[int], float]) -> MergeRule:
    """The rule of a rank file or a SentencePiece BPE model: neighbours join when their concatenation is a token."""

    def rule(left: int, right: int) -> tuple[float, int] | None:
        first, second = tokens[left], tokens[right]
        product = None if first is None or second is None else index.get(first + second)
        return None if product is None else (rank(product), product)

    return rule


def route(symbols: Sequence[int], rule: MergeRule) -> tuple[list[int], int]:
    """Run BPE on the symbols of one token.

    Returns  the products of the merges that fire, in order, and how many symbols are left (1: the token was reached)
    Example  with merges (a,c) and then (a,ac), the symbols a a c give the products [ac, aac] and 1
    """
    parts = list(symbols)
    candidates = [rule(left, right) for left, right in pairwise(parts)]
    products: list[int] = []
    while True:
        best, place = None, -1
        for position, candidate in enumerate(candidates):
            if candidate is not None and (best is None or candidate[0] < best[0]):
                best, place = candidate, position
        if best is None:
            return products, len(parts)
        products.append(best[1])
        parts[place : place + 2] = [best[1]]
        del candidates[place]
        if place < len(candidates):
            candidates[place] = rule(parts[place], parts[place + 1])
        if place:
            candidates[place - 1] = rule(parts[place - 1], parts[place])


def route_closure(
    chosen: Sequence[int], tokens: Sequence[str | None], spelling: Spelling, rule: MergeRule
) -> Iterator[tuple[int, int]]:
    """(needed id, id that needs it) for every chosen token: its symbols and the tokens on its route.

    An orphan, a token that no merge reaches, can only be taken whole and needs nothing. The tokens on a route need no
    walk of their own: what built them is part of the same route.
    """
    for token_id in chosen:
        token = tokens[token_id]
        symbols = spelling.symbols(token) if token else None
        if not symbols:
            continue
        products, remaining = route(symbols, rule)
        if remaining == 1 and (not products or products[-1] == token_id):
            for needed in (*symbols, *products):
                if needed != token_id:
                    yield needed, token_id


def merges_to_keep(merges: Merges, kept: Sequence[int], size: int) -> np.ndarray:
    """Mark the merges whose two parts and product are all kept, (merges,) bool.

    All routes of kept tokens are among them. The others that qualify do not change text that used kept tokens only
    (they were candidates in the source too and lost), and let other text use fewer tokens.
    """
    is_kept = np.zeros(size, dtype=bool)
    is_kept[np.asarray(kept, dtype=np.int64)] = True
    marked: np.ndarray = is_kept[merges.left] & is_kept[merges.right] & is_kept[merges.product]
    return marked
