"""Large JSON in parts: where the values of an object lie in the bytes, and their entries some thousand at a time.

Strings and brackets are found for the whole file at once, in arrays. What lies between them is left to `json.loads`, which
sees every byte: nothing is accepted here that it would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

Places = np.ndarray[Any, np.dtype[np.int32]]
Span = tuple[int, int]
_WINDOW = 4096  # entries decoded at a time
_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1
_IS_BRACKET = _STEP != 0
_IS_QUOTE, _IS_BACKSLASH, _IS_COMMA = (np.arange(256) == sign for sign in b'"\\,')
_BACKSLASH = ord("\\")
_SLAB = 1 << 20


class Structure:
    """The strings and brackets of a JSON text.

    Raises  ValueError where a string or a bracket is never closed
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._data = np.frombuffer(raw, dtype=np.uint8)
        self._quotes = self._find_quotes()
        brackets = self._places(0, len(raw), _IS_BRACKET)
        self._brackets = brackets[~self._in_string(brackets)]
        self._depths = np.cumsum(_STEP[self._data[self._brackets]], dtype=np.int32)
        if len(self._quotes) % 2:
            raise ValueError("a string is never closed")
        if not len(self._depths) or self._depths[-1] != 0 or (self._depths < 0).any():
            raise ValueError("a bracket is never closed" if len(self._depths) else "expected an object")

    def _places(self, start: int, end: int, wanted: np.ndarray[Any, np.dtype[np.bool_]]) -> Places:
        """Places of the wanted bytes, a few megabytes at a time: what compares them takes many times their room."""
        parts = [
            (np.flatnonzero(wanted[self._data[at : min(at + _SLAB, end)]]) + at).astype(np.int32)
            for at in range(start, end, _SLAB)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def _find_quotes(self) -> Places:
        """Places of the quotes that begin and end strings: those after an even number of backslashes."""
        quotes = self._places(0, len(self.raw), _IS_QUOTE)
        slashes = self._places(0, len(self.raw), _IS_BACKSLASH)
        after = np.flatnonzero(self._data[np.maximum(quotes, 1) - 1] == _BACKSLASH)
        if not len(after):
            return quotes
        number = np.arange(len(slashes))
        first = np.concatenate([[True], np.diff(slashes) != 1])
        run = number - np.maximum.accumulate(np.where(first, number, 0)) + 1
        before = np.searchsorted(slashes, quotes[after] - 1)
        return np.delete(quotes, after[run[before] % 2 == 1])

    def _in_string(self, places: Places) -> np.ndarray[Any, np.dtype[np.bool_]]:
        inside = np.empty(len(places), dtype=bool)
        for at in range(0, len(places), _SLAB // 8):  # as above
            inside[at : at + _SLAB // 8] = np.searchsorted(self._quotes, places[at : at + _SLAB // 8]) % 2 == 1
        return inside

    @property
    def whole(self) -> Span:
        """The outermost array or object, brackets included."""
        return int(self._brackets[0]), int(self._brackets[-1]) + 1

    def members(self, span: Span) -> Iterator[tuple[str, Span]]:
        """(key, span) of every array and object that is a value of the object at `span`."""
        first, last = np.searchsorted(self._brackets, [span[0], span[1] - 1]).tolist()
        depth = self._depths[first]
        inside = self._depths[first + 1 : last]
        opening = (
            first
            + 1
            + np.flatnonzero((inside == depth + 1) & (_STEP[self._data[self._brackets[first + 1 : last]]] > 0))
        )
        closing = (
            first + 1 + np.flatnonzero((inside == depth) & (_STEP[self._data[self._brackets[first + 1 : last]]] < 0))
        )
        for start, end in zip(self._brackets[opening].tolist(), self._brackets[closing].tolist(), strict=True):
            quote = int(np.searchsorted(self._quotes, start))
            key = self.raw[self._quotes[quote - 2] : self._quotes[quote - 1] + 1] if quote else b""
            if quote and self.raw[self._quotes[quote - 1] + 1 : start].strip() == b":":
                yield json.loads(key), (start, end + 1)

    def windows(self, span: Span) -> Iterator[Any]:
        """Decode a large array or object some thousand entries at a time; each window is a list or a dict."""
        start, end = span
        opening, closing = self.raw[start : start + 1], self.raw[end - 1 : end]
        outer = self._depths[np.searchsorted(self._brackets, start)]
        commas = self._places(start + 1, end - 1, _IS_COMMA)
        around = self._depths[np.searchsorted(self._brackets, commas) - 1]
        commas = commas[around == outer]
        commas = commas[~self._in_string(commas)]
        position = start + 1
        for stop in [*commas[_WINDOW - 1 :: _WINDOW].tolist(), end - 1]:
            entries = self.raw[position:stop]
            if entries.strip() or stop != end - 1 or position != start + 1:
                yield json.loads(opening + entries + closing)
            position = stop + 1
