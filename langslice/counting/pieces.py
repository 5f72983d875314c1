"""Split blocks of units into pieces, and count the distinct ones, in columns: no piece becomes an object of Python.

A piece is UTF-8. One that begins with START opens a unit, one that begins with a space was split off before that space, and
every other was split off from a letter or digit before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langslice.counting.split_points import LEFT, OPAQUE, POINT, RIGHT, START, WORD, SplitRules
from langslice.counting.unigram_splits import LONGEST_WORD, decided

TABLE_BYTES = 48 << 20  # distinct pieces held by one counting process
FEWEST_PENDING = 1 << 20  # pieces that wait to be merged into the table: it is hashed anew each time
AT_ONCE = 1 << 16  # pieces made objects of Python at once: each takes some 100 bytes

SPACE, OPENS = ord(" "), ord(START)


@dataclass(frozen=True)
class Pieces:
    """Distinct pieces and how often each occurs.

    data     UTF-8 of the pieces, one after the other
    offsets  (n + 1,) int32, where each begins in `data`, and the end
    weights  (n,) int64
    """

    data: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        """How many there are."""
        return len(self.weights)

    @property
    def size_bytes(self) -> int:
        """Memory."""
        return int(self.data.nbytes + self.offsets.nbytes + self.weights.nbytes)

    @property
    def opening(self) -> np.ndarray:
        """(n,) uint8, the first byte of each."""
        first: np.ndarray = self.data[self.offsets[:-1]]
        return first

    def take(self, which: np.ndarray) -> Pieces:
        """Those at these places, in this order; or those that a mask marks.

        which  (n,) int64 places, or bool (pieces,)
        """
        import pyarrow as pa

        places = np.flatnonzero(which) if which.dtype == bool else which
        return _pieces(_column(self).take(pa.array(places)), self.weights[places])

    def every(self, step: int) -> Pieces:
        """One of so many."""
        return self.take(np.arange(0, len(self), step))

    def texts(self) -> Iterator[tuple[str, int]]:
        """The pieces as text, and their weights; only some of them are objects at a time."""
        column = _column(self)
        for at in range(0, len(self), AT_ONCE):
            weights = self.weights[at : at + AT_ONCE].tolist()
            for piece, weight in zip(column.slice(at, AT_ONCE).to_pylist(), weights, strict=True):
                yield piece.decode(), weight


NO_PIECES = Pieces(np.zeros(0, np.uint8), np.zeros(1, np.int32), np.zeros(0, np.int64))


def _column(pieces: Pieces) -> Any:
    """The pieces as a column of pyarrow, on the same memory."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(pieces.offsets), pa.py_buffer(pieces.data)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(pieces.offsets) - 1, buffers)


def _pieces(column: Any, weights: np.ndarray) -> Pieces:
    """A column that is at the beginning of its own memory."""
    _, offsets, data = column.buffers()
    if not len(column):
        return NO_PIECES
    places = np.frombuffer(offsets, np.int32)[: len(column) + 1]
    return Pieces(np.frombuffer(data, np.uint8)[: places[-1]], places, weights)


def distinct(parts: Sequence[Pieces]) -> Pieces:
    """The distinct pieces of several, with the sums of their weights."""
    import pyarrow as pa

    encoded = pa.concat_arrays([_column(part) for part in parts]).dictionary_encode()
    weights = np.concatenate([part.weights for part in parts]).astype(np.float64)  # exact below 2**53
    summed = np.bincount(encoded.indices.to_numpy(), weights, len(encoded.dictionary)).astype(np.int64)
    return _pieces(encoded.dictionary, summed)


@dataclass
class PieceTable:
    """Distinct pieces, bounded: when they take too much memory, the rare ones move on, so that a common piece is passed on
    a few times and a rare one never waits.
    """

    limit_bytes: int = TABLE_BYTES
    merged: Pieces = NO_PIECES
    pending: list[Pieces] = field(default_factory=list)

    def add(self, pieces: Pieces) -> Pieces:
        """Count pieces; give those that must be encoded now."""
        self.pending.append(distinct([pieces]))
        waiting = sum(map(len, self.pending))
        size_bytes = sum(part.size_bytes for part in self.pending)
        if waiting < max(FEWEST_PENDING, len(self.merged) // 2) and size_bytes < self.limit_bytes // 4:
            return NO_PIECES
        self.merge()
        if self.merged.size_bytes < self.limit_bytes * 3 // 4:
            return NO_PIECES
        rare = self.merged.weights == 1
        if rare.sum() * 2 < len(rare):
            rare[:] = True
        moved, self.merged = self.merged.take(rare), self.merged.take(~rare)
        return moved

    def merge(self) -> Pieces:
        """All pieces that are held, each once."""
        if self.pending:
            self.merged = distinct([self.merged, *self.pending])
            self.pending = []
        return self.merged


def split_units(rules: SplitRules, data: bytes) -> Pieces:
    """Split units, each opened by START, before every run of spaces, and before punctuation, where the rules allow it.

    Example  START + "to be  or" gives START + "to", " be", "  or"; with `indents` START + "    def f" gives START + "   ",
             " def", " f"; with `points` START + "f(x)" gives START + "f", "(x", ")"
    """
    codes = np.frombuffer(data + START.encode(), np.uint8)
    splits = codes == OPENS
    splits[_before_spaces(rules, codes)] = True
    if rules.points and not rules.tree:
        splits[_before_points(rules, codes)] = True
    offsets = np.flatnonzero(splits).astype(np.int32)
    return Pieces(codes[:-1], offsets, np.ones(len(offsets) - 1, np.int64))


def split_words(rules: SplitRules, words: Pieces) -> Pieces:
    """Split distinct words before punctuation, after the last part that is not decided by itself.

    Returns  the parts in order, each with the weight of its word; some are the same
    """
    splits = _before_points(rules, words.data)
    word_of = np.searchsorted(words.offsets, splits, "right") - 1
    every = _united(words.offsets, splits)
    parts = _column(Pieces(words.data, every, words.weights)).take(np.searchsorted(every, splits)).dictionary_encode()
    known = _pieces(parts.dictionary, np.zeros(len(parts.dictionary), np.int64))
    safe = decided(rules.tree, known.data, known.offsets[:-1], known.offsets[1:])[parts.indices.to_numpy()]
    safe &= np.diff(words.offsets)[word_of] <= LONGEST_WORD
    last_unsafe = np.full(len(words), -1)
    last_unsafe[word_of[~safe]] = splits[~safe]  # the last one stays
    good = splits > last_unsafe[word_of]
    weights = np.repeat(words.weights, 1 + np.bincount(word_of[good], minlength=len(words)))
    return Pieces(words.data, _united(words.offsets, splits[good]), weights)


def _united(offsets: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Both, sorted."""
    marks = np.zeros(int(offsets[-1]) + 1, bool)
    marks[offsets] = True
    marks[splits] = True
    return np.flatnonzero(marks).astype(np.int32)


def _before_spaces(rules: SplitRules, codes: np.ndarray) -> np.ndarray:
    spaces = codes == SPACE
    first = np.flatnonzero(spaces[1:] & ~spaces[:-1]) + 1  # of each run; the text begins and ends with START
    last = np.flatnonzero(spaces[:-1] & ~spaces[1:])
    before, after = classes_before(rules, codes, first), _classes_after(rules, codes, last + 1)
    safe = ((before | after) & OPAQUE) == 0
    safe &= ((before & LEFT) == 0) | ((after & RIGHT) == 0)
    if rules.indents:
        opening = (codes[first - 1] == OPENS) & ((after & OPAQUE) == 0)
        first = np.where(opening, last, first)
        safe |= opening
    chosen: np.ndarray = first[safe]
    return chosen


def _before_points(rules: SplitRules, codes: np.ndarray) -> np.ndarray:
    points = np.zeros(256, bool)
    points[:128] = (rules.classes[:128] & POINT) != 0
    words = np.ones(256, bool)  # bytes of other characters than ASCII's: perhaps
    words[:128] = (rules.classes[:128] & WORD) != 0
    found = np.flatnonzero(points[codes[1:]] & words[codes[:-1]]) + 1
    chosen: np.ndarray = found[(classes_before(rules, codes, found) & WORD) != 0]
    return chosen


def classes_before(rules: SplitRules, codes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Classes of the characters that end before each of these bytes.

    codes    (bytes,) uint8, UTF-8 text
    ends     (n,) int64 byte offsets, each just after a character
    Returns  (n,) uint8, as in `SplitRules.classes`
    """
    found: np.ndarray = rules.classes[codes[ends - 1]]
    far = np.flatnonzero(codes[ends - 1] >= 0x80)
    starts = ends[far] - 1
    for _ in range(3):
        starts -= (codes[starts] & 0xC0) == 0x80
    found[far] = rules.classes[_characters(codes, starts)]
    return found


def _classes_after(rules: SplitRules, codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Classes of the characters that begin at each of these bytes."""
    found: np.ndarray = rules.classes[codes[starts]]
    far = np.flatnonzero(codes[starts] >= 0x80)
    found[far] = rules.classes[_characters(codes, starts[far])]
    return found


def _characters(codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Code points of the characters of two to four bytes that begin at these bytes of UTF-8."""
    lead = codes[starts].astype(np.uint32)
    lengths = 2 + (lead >= 0xE0) + (lead >= 0xF0)
    points: np.ndarray = lead & (0x7F >> lengths)
    for at in range(1, 4):
        following = codes[np.minimum(starts + at, len(codes) - 1)] & 0x3F
        points = np.where(at < lengths, points << 6 | following, points)
    return points
