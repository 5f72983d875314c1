"""Units joined to blocks of bytes, and a bounded table of distinct units for text that cannot be split."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from langslice.counting.split_points import START
from langslice.errors import CorpusError

BLOCK_CHARACTERS = 1 << 20
LONGEST_UNIT = 1 << 28  # characters
MOST_UNITS = 64  # taken at once: a loop of our own for each would take as long as reading them
UNIT_TABLE_BYTES = 96 << 20  # distinct units held to find repeated ones
ENTRY_BYTES = 110  # a dictionary's share for one entry: slot, index and the integer, measured


@dataclass
class Totals:
    """What has been read so far."""

    units: int = 0
    characters: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class TextBlock:
    """Some units.

    data  UTF-8 of the units one after the other, each opened by START
    odd   units that hold START themselves, or are so long that places in them would not fit into 32 bits
    """

    data: bytes
    odd: tuple[str, ...] = ()

    @property
    def units(self) -> list[str]:
        """All of them."""
        return [*self.data.decode().split(START)[1:], *self.odd]


def unit_blocks(
    units: Iterable[str], totals: Totals, progress: Callable[[int], None] | None = None
) -> Iterator[TextBlock]:
    """Yield the units in blocks of about BLOCK_CHARACTERS.

    totals    is added to while reading
    progress  receives the UTF-8 bytes of text read since its last call
    Raises    CorpusError for a unit that is not text or holds half a surrogate pair
    """
    for batch in _batches(units):
        text = START + START.join(batch)
        odd: tuple[str, ...] = ()
        if text.count(START) != len(batch) or len(text) > LONGEST_UNIT:
            odd = tuple(unit for unit in batch if _is_odd(unit))
            text = "".join(START + unit for unit in batch if not _is_odd(unit))
        block = TextBlock(_encoded(text, totals), odd)
        marks = len(batch) - len(odd)
        size_bytes = len(block.data) - marks + sum(len(_encoded(unit, totals)) for unit in odd)
        totals.units += len(batch)
        totals.characters += len(text) - marks + sum(map(len, odd))
        totals.size_bytes += size_bytes
        if progress is not None:
            progress(size_bytes)
        yield block


def _is_odd(unit: str) -> bool:
    return START in unit or len(unit) > LONGEST_UNIT


def _batches(units: Iterable[str]) -> Iterator[list[str]]:
    """About BLOCK_CHARACTERS at a time; long units are taken one by one."""
    waiting = iter(units)
    batch: list[str] = []
    room, number = BLOCK_CHARACTERS, 1
    while taken := list(islice(waiting, number)):
        size = sum(map(len, taken))
        number = min(MOST_UNITS, 2 * number) if size < BLOCK_CHARACTERS // 16 else 1
        batch += taken
        room -= size
        if room < 0:
            yield batch
            batch, room = [], BLOCK_CHARACTERS
    if batch:
        yield batch


def _encoded(text: str, totals: Totals) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        at = text[max(0, error.start - 20) : error.start + 20].replace(START, "")
        raise CorpusError(
            f"text with half of a surrogate pair, near unit {totals.units:,}: {at!r}",
            "the text was split or decoded wrongly before it came here; repair it with a strict UTF-8 encoder",
        ) from error


@dataclass
class UnitTable:
    """Distinct units that are encoded whole, and how often each occurs.

    Bounded: when it is full, the rare ones (most of them seen once) move on and the frequent ones stay, so that a common unit
    is passed on a few times and a rare one never waits.
    """

    limit_bytes: int = UNIT_TABLE_BYTES
    entries: Counter[str] = field(default_factory=Counter)
    _held: int = 0  # memory of the entries, at most

    def add(self, units: list[str]) -> dict[str, int]:
        """Count units; give those that must be encoded now."""
        self.entries.update(units)
        self._held += sum(map(sys.getsizeof, units)) + ENTRY_BYTES * len(units)
        if self._held < self.limit_bytes:
            return {}
        self._held = table_bytes(self.entries)
        if self._held < self.limit_bytes // 2:
            return {}
        rare = take_rare(self.entries)
        self._held = table_bytes(self.entries)
        return rare


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
