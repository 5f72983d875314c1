"""Learn merges on words that are spelled in pieces already: byte-pair encoding, continued.

At every step the two neighbours that stand next to each other most often become one token (Gage 1994; Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909). A character that the vocabulary spells in bytes stands as one symbol, and is a candidate as
well: it saves as many tokens each time as it has bytes, less one.

This module knows symbols and counts. Which neighbours may join at all is for the caller to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import pairwise

Word = tuple[int, ...]
"""Symbols: ids of tokens, and below zero characters that have no token of their own."""
Joined = Callable[[str, str], "str | None"]
"""Spelling of two neighbours as one token; None where they may not become one."""


@dataclass(frozen=True)
class Merge:
    """One learned token.

    parts  the symbols that it replaces: two neighbours, or one character that is spelled in bytes
    token  how it is spelled
    made   the symbol that it is now
    count  how often it was made
    """

    parts: Word
    token: str
    made: int
    count: int


@dataclass
class MergeLearner:
    """Words and the pairs in them; `learn` gives one merge after another.

    joined      see `Joined`; asked once for each pair
    tokens      spelling of every symbol; new ones are appended
    characters  symbol below zero -> spelling of its character, and the bytes that it takes now
    uses        symbol -> how often it stands in the words
    """

    joined: Joined
    tokens: list[str]
    characters: Mapping[int, tuple[str, int]]
    words: list[list[int]] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    uses: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _gains: dict[Word, int] = field(default_factory=lambda: defaultdict(int))
    _places: dict[Word, set[int]] = field(default_factory=lambda: defaultdict(set))
    _spelled: dict[Word, str | None] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def add(self, words: Iterable[tuple[Word, int]]) -> None:
        """Words, each with how often it occurs."""
        for word, weight in words:
            self.words.append(list(word))
            self.weights.append(weight)
            self._count(len(self.words) - 1, 1)

    def learn(self, least: int) -> Iterator[Merge]:
        """Merges by the tokens that they save, as long as they save `least`; of equal ones the first by spelling."""
        heap = [
            (-gain, self._spelling(parts) or "", parts) for parts, gain in self._gains.items() if self._spelling(parts)
        ]
        heapify(heap)
        while heap:
            gain, token, parts = heappop(heap)
            now = self._gains.get(parts, 0)
            if token in self._taken or now < least:
                continue
            if -gain != now:  # it changed since it was put there
                heappush(heap, (-now, token, parts))
                continue
            made = len(self.tokens)
            self.tokens.append(token)
            self._taken.add(token)
            count, changed = self._apply(parts, made)
            for other in sorted(changed):
                spelling = self._spelling(other)
                if spelling is not None:
                    heappush(heap, (-self._gains[other], spelling, other))
            yield Merge(parts, token, made, count)

    def _apply(self, parts: Word, made: int) -> tuple[int, set[Word]]:
        """Write a new symbol into every word: how often it is made, and the candidates that came about."""
        count = 0
        found: set[Word] = set()
        for at in sorted(self._places.pop(parts, ())):
            old, weight = self.words[at], self.weights[at]
            new = replaced(old, parts, made)
            if made not in new:
                continue
            self._count(at, -1)
            self.words[at] = new
            self._count(at, 1)
            count += weight * new.count(made)
            found.update(pair for pair in pairwise(new) if made in pair)
        self._gains.pop(parts, None)
        return count, found

    def _count(self, at: int, sign: int) -> None:
        """Add a word's candidates to the gains, or take them away."""
        word, weight = self.words[at], sign * self.weights[at]
        for symbol in word:
            self.uses[symbol] += weight
            if symbol < 0:
                self._gains[symbol,] += weight * (self.characters[symbol][1] - 1)
                self._places[symbol,].add(at)
        for pair in pairwise(word):
            self._gains[pair] += weight
            self._places[pair].add(at)

    def _spelling(self, parts: Word) -> str | None:
        if parts not in self._spelled:
            spelled = self.characters[parts[0]][0] if len(parts) == 1 else self._pair(*parts)
            self._spelled[parts] = spelled
        return self._spelled[parts]

    def _pair(self, left: int, right: int) -> str | None:
        return None if left < 0 or right < 0 else self.joined(self.tokens[left], self.tokens[right])


def replaced(word: list[int], parts: Word, made: int) -> list[int]:
    """A word with every occurrence of `parts` replaced, from the left.

    Example  (1, 1, 1) with (1, 1) as 9 is (9, 1)
    """
    found: list[int] = []
    at, size = 0, len(parts)
    while at < len(word):
        hit = tuple(word[at : at + size]) == parts
        found.append(made if hit else word[at])
        at += size if hit else 1
    return found
