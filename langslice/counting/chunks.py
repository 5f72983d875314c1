"""Distinct units, and the distinct chunks that they are cut into, with how often each occurs.

Both tables are bounded: when one is full, its rare entries (most of them seen once) move on and the frequent ones stay,
so that a common word is passed on a few times and a rare one never waits.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from langslice.counting.cutting import CUT, JOIN, LEFT, MARKS, OPAQUE, POINT, RIGHT, START, WORD, CutRules
from langslice.errors import CorpusError

BLOCK_CHARACTERS = 1 << 20  # text cut at once; the arrays for it take about ten bytes a character
UNIT_TABLE_BYTES = 96 << 20  # distinct units held to find repeated ones
CHUNK_TABLE_BYTES = 96 << 20  # distinct chunks held by one counting process, while as many again are encoded
ENTRY_BYTES = 110  # a dictionary's share for one entry: slot, index and the integer, measured


@dataclass
class Totals:
    """What has been read so far."""

    units: int = 0
    characters: int = 0
    size_bytes: int = 0


def unit_blocks(
    units: Iterable[str], totals: Totals, progress: Callable[[int], None] | None = None
) -> Iterator[list[tuple[str, int]]]:
    """Yield blocks of (distinct unit, how often); a unit may come again in a later block.

    totals    is added to while reading
    progress  receives the UTF-8 bytes of text read since its last call
    Raises    CorpusError for a unit that is not text or holds half a surrogate pair
    """
    table: Counter[str] = Counter()
    held = 0
    for batch in _batches(units):
        size_bytes = _measure(batch, totals)
        if progress is not None:
            progress(size_bytes)
        table.update(batch)
        held += 2 * size_bytes + ENTRY_BYTES * len(batch)  # at most; counted properly once it could be too much
        if held > UNIT_TABLE_BYTES:
            held = table_bytes(table)
            if held > UNIT_TABLE_BYTES // 2:
                yield from _blocks(take_rare(table))
                held = table_bytes(table)
    yield from _blocks(table)


def _batches(units: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    room = BLOCK_CHARACTERS
    for unit in units:
        batch.append(unit)
        room -= len(unit)
        if room < 0:
            yield batch
            batch, room = [], BLOCK_CHARACTERS
    if batch:
        yield batch


def _measure(batch: list[str], totals: Totals) -> int:
    try:
        text = "".join(batch)
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        at = text[max(0, error.start - 20) : error.start + 20]
        raise CorpusError(
            f"text with half of a surrogate pair, near unit {totals.units:,}: {at!r}",
            "the text was cut or decoded wrongly before it came here; repair it with a strict UTF-8 encoder",
        ) from error
    totals.units += len(batch)
    totals.characters += len(text)
    totals.size_bytes += size_bytes
    return size_bytes


def _blocks(table: dict[str, int]) -> Iterator[list[tuple[str, int]]]:
    block: list[tuple[str, int]] = []
    room = BLOCK_CHARACTERS
    for unit, weight in table.items():
        block.append((unit, weight))
        room -= len(unit)
        if room < 0:
            yield block
            block, room = [], BLOCK_CHARACTERS
    if block:
        yield block


def table_bytes(table: dict[str, int]) -> int:
    """Memory of a table: its strings and its entries."""
    return sum(map(sys.getsizeof, table)) + ENTRY_BYTES * len(table)


def take_rare(table: Counter[str]) -> dict[str, int]:
    """Move the rare entries out of a table: those seen once, or all of them where that would free less than half."""
    rare = {text: weight for text, weight in table.items() if weight == 1}
    if len(rare) * 2 < len(table):
        rare = dict(table)
        table.clear()
        return rare
    kept = {text: weight for text, weight in table.items() if weight != 1}
    table.clear()  # a dictionary never gives slots back while it shrinks
    table.update(kept)
    return rare


@dataclass
class Cut:
    """A block of units, cut.

    once     pieces of the units that occur once. One that begins with START opens a unit, one that begins with JOIN
             follows a letter or digit; every other follows a space that is not in it
    often    how often -> pieces of the units that occur so often
    whole    units that must not be cut
    """

    once: list[str] = field(default_factory=list)
    often: dict[int, list[str]] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """How many pieces it has."""
        return len(self.once) + sum(map(len, self.often.values()))

    def add_to(self, table: Counter[str]) -> None:
        """Count the pieces."""
        table.update(self.once)  # the C loop, three times as fast as ours
        for weight, pieces in self.often.items():
            for piece, number in Counter(pieces).items():
                table[piece] += weight * number


def cut_block(rules: CutRules, block: list[tuple[str, int]]) -> Cut:
    """Cut the units of a block."""
    cut = Cut()
    by_weight: dict[int, list[str]] = {}
    for unit, weight in block:
        by_weight.setdefault(weight, []).append(unit)
    for weight, units in by_weight.items():
        pieces = cut_text(rules, joined(_set_aside(rules, units, weight, cut)))
        if weight == 1:
            cut.once = pieces
        else:
            cut.often[weight] = pieces
    return cut


def joined(units: list[str]) -> str:
    """Write units behind one another, each opened by START and parted by CUT."""
    return START + (CUT + START).join(units) if units else ""


def _set_aside(rules: CutRules, units: list[str], weight: int, cut: Cut) -> list[str]:
    """Move units with an added token or with one of our marks to `cut.whole`; give the others."""
    text = "".join(units)
    if not (any(mark in text for mark in MARKS) or rules.has_added_token(text)):
        return units
    clear = []
    for unit in units:
        if any(mark in unit for mark in MARKS) or rules.has_added_token(unit):
            cut.whole[unit] = weight
        else:
            clear.append(unit)
    return clear


def cut_text(rules: CutRules, text: str) -> list[str]:
    """Cut joined units (see `joined`) before every run of spaces, and before punctuation, where the rules allow it.

    Example  START + "to be  or" gives [START + "to", "be", " or"]: the space at the cut is left out; with `indents`
             START + "    def f" gives [START + "   ", "def", "f"]; with `points` START + "f(x)" gives
             [START + "f", JOIN + "(x", JOIN + ")"]
    """
    if not text:
        return []
    codes = np.frombuffer((text + CUT).encode("utf-32-le"), np.uint32)
    spaces = codes == 32
    first = np.flatnonzero(spaces[1:] & ~spaces[:-1]) + 1  # of each run; text begins with START, never with a space
    last = np.flatnonzero(spaces[:-1] & ~spaces[1:])
    before, after = rules.classes[codes[first - 1]], rules.classes[codes[last + 1]]
    safe = ((before | after) & OPAQUE) == 0
    safe &= ((before & LEFT) == 0) | ((after & RIGHT) == 0)
    single = (first == last).all()
    if rules.indents:
        opening = (codes[first - 1] == ord(START)) & ((after & OPAQUE) == 0)
        first = np.where(opening, last, first)
        safe |= opening
    if not rules.points and single and safe.all():
        return text.replace(" ", CUT).split(CUT)
    marked = codes[:-1].copy()
    marked[first[safe]] = ord(CUT)
    if rules.points:
        classes = rules.classes[codes[:-1]]
        points = np.flatnonzero(((classes[:-1] & WORD) != 0) & ((classes[1:] & POINT) != 0)) + 1
        marks = np.array([ord(CUT)] if rules.points == "space" else [ord(CUT), ord(JOIN)], np.uint32)
        marked = np.insert(marked, np.repeat(points, len(marks)), np.tile(marks, len(points)))
    return marked.tobytes().decode("utf-32-le").split(CUT)
