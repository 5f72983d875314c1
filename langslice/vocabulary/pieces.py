"""Pieces of UTF-8 characters, which byte-level vocabularies hold, and the scripts that they can belong to.

What a piece can be is looked up among all assigned characters, never guessed from a lead byte: 0xEA alone begins
Hangul, Yi and Vai.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from langslice.vocabulary.unicode_scripts import CODE_POINTS, NEUTRAL, UNASSIGNED, script_table, scripts_of_character


def split_bytes(surface: bytes) -> Iterator[int]:
    """Code points of the whole characters in damaged UTF-8 and negative keys of the pieces around them."""
    position = 0
    while position < len(surface):
        size = _sequence_length(surface[position])
        chunk = surface[position : position + size]
        try:
            yield ord(chunk.decode())
            position += size
        except (UnicodeDecodeError, TypeError):
            end = position + 1
            while end < len(surface) and 0x80 <= surface[end] < 0xC0:
                end += 1
            yield -_key(surface[position:end])
            position = end


def _sequence_length(lead: int) -> int:
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _key(piece: bytes) -> int:
    """A number for a piece of a character; the 1 in front tells pieces of different lengths apart."""
    return int.from_bytes(b"\x01" + piece[:6], "big")


@lru_cache(maxsize=1)
def _piece_table() -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]], list[int]]:
    """Every proper piece of every assigned character: (sorted keys, element class of each, example code point)."""
    table = script_table()
    unassigned = table.names.index(UNASSIGNED)
    points = np.flatnonzero(table.codes != unassigned)
    points = points[(points >= 0x80) & ((points < 0xD800) | (points > 0xDFFF))]
    class_of, examples = _classes(points)
    keys = []
    owners = []
    for low, high, size in ((0x80, 0x800, 2), (0x800, 0x10000, 3), (0x10000, CODE_POINTS, 4)):
        chosen = (points >= low) & (points < high)
        encoded = _utf8(points[chosen], size)
        for start in range(size):
            for end in range(start + 1, size + 1):
                if end - start < size:
                    key = np.ones(encoded.shape[0], dtype=np.int64)
                    for column in range(start, end):
                        key = (key << 8) | encoded[:, column]
                    keys.append(key)
                    owners.append(class_of[chosen])
    pairs = np.unique((np.concatenate(keys) << 12) | np.concatenate(owners))
    return pairs >> 12, pairs & 0xFFF, examples


def _classes(
    points: np.ndarray[Any, np.dtype[np.int64]],
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[int]]:
    """Number the distinct script sets of these code points; an example code point for each."""
    table = script_table()
    class_of = table.codes[points].astype(np.int64)
    examples: dict[int, int] = {}
    numbers: dict[tuple[int, frozenset[str]], int] = {}
    neutral = [table.names.index(name) for name in sorted(NEUTRAL)]
    for spot in np.flatnonzero(np.isin(class_of, neutral)):
        extension = table.extensions.get(int(points[spot]), frozenset())
        if extension:
            class_of[spot] = numbers.setdefault((0, extension), len(table.names) + len(numbers))
    for number, spot in zip(*np.unique(class_of, return_index=True), strict=True):
        examples[int(number)] = int(points[spot])
    return class_of, [examples.get(number, -1) for number in range(max(examples) + 1)]


def _utf8(points: np.ndarray[Any, np.dtype[np.int64]], size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """UTF-8 bytes of code points that take `size` bytes: (n, size)."""
    lead = {2: 0xC0, 3: 0xE0, 4: 0xF0}[size]
    columns = [lead | (points >> (6 * (size - 1)))]
    columns += [0x80 | ((points >> (6 * rest)) & 0x3F) for rest in range(size - 2, -1, -1)]
    return np.stack(columns, axis=1)


def scripts_of_piece(key: int) -> frozenset[frozenset[str]]:
    """Script sets that the character after a piece can have; {"Zzzz"} when no assigned character holds it."""
    keys, classes, examples = _piece_table()
    low, high = np.searchsorted(keys, [key, key + 1])
    found = {scripts_of_character(chr(examples[number])) for number in classes[low:high]}
    return frozenset(found) if found else frozenset({frozenset({UNASSIGNED})})
