"""Count tokens of blocks of units in one process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from langslice.counting.blocks import TextBlock, UnitTable
from langslice.counting.pieces import NO_PIECES, TABLE_BYTES, Pieces, PieceTable, distinct, split_units, split_words
from langslice.counting.split_points import START, SplitRules
from langslice.counting.weighted_texts import Encode, add_encoded, lines_of, text_of

SPLIT_BYTES = 6 << 20  # text split at once; the arrays for it take about ten bytes per byte
SAMPLES_PER_BLOCK = 4
SAMPLE_BYTES = 1024
WORDS_CHECKED = 1000


@dataclass
class ChunkTable:
    """What was read and is not encoded yet: distinct pieces, and distinct units that must not be split; both bounded.

    splitter     thread that splits and counts pieces while the next blocks are read
    limit_bytes  memory at which the rare pieces are handed out
    mismatches   texts of the self-check whose pieces gave other tokens; the blocks they are in are not split
    """

    encode: Encode
    rules: SplitRules
    splitter: Executor
    limit_bytes: int = TABLE_BYTES
    mismatches: list[str] = field(default_factory=list)
    units: UnitTable = field(default_factory=UnitTable)

    def __post_init__(self) -> None:
        self.pieces = PieceTable(self.limit_bytes)
        self._unsplit: list[bytes] = []
        self._splitting: Future[Pieces] | None = None

    def add(self, block: TextBlock) -> tuple[Pieces, dict[str, int]]:
        """Add a block; give what must be encoded now: pieces, and whole units."""
        if self.rules.reason:
            return NO_PIECES, self.units.add(block.units)
        data, whole = _set_aside(self.rules, block)
        mismatch = differing_sample(self.encode, self.rules, data)
        if mismatch:
            self.mismatches.append(mismatch)
            data, whole = b"", block.units
        self._unsplit.append(data)
        return (self._split() if sum(map(len, self._unsplit)) > SPLIT_BYTES else NO_PIECES), self.units.add(whole)

    def _split(self) -> Pieces:
        """Have the text at hand split, and give what no longer fitted when the text before was."""
        data, self._unsplit = b"".join(self._unsplit), []
        before = self._wait()
        self._splitting = self.splitter.submit(
            lambda: self.pieces.add(split_units(self.rules, data)) if data else NO_PIECES
        )
        return before

    def _wait(self) -> Pieces:
        """What no longer fits now that the last text is split."""
        return NO_PIECES if self._splitting is None else self._splitting.result()

    def rest(self) -> Iterator[tuple[Pieces, dict[str, int]]]:
        """What is left."""
        yield self._split(), {}
        yield self._wait(), {}
        yield self.pieces.merge(), self.units.entries


def _set_aside(rules: SplitRules, block: TextBlock) -> tuple[bytes, list[str]]:
    """Part units with an added token, or with our mark, from those that may be split."""
    if not rules.has_added_token(block.data.decode()):
        return block.data, list(block.odd)
    clear, whole = [], list(block.odd)
    for unit in block.units[: len(block.units) - len(whole)]:
        if rules.has_added_token(unit):
            whole.append(unit)
        else:
            clear.append(START + unit)
    return "".join(clear).encode(), whole


def differing_sample(encode: Encode, rules: SplitRules, data: bytes) -> str:
    """Encode a few of the units in a block whole and in pieces; give the first whose tokens differ, or ""."""
    units = [unit for unit in _sample(data) if unit]
    if not units:
        return ""
    wholes = [START + unit for unit in units]
    return _first_difference(encode, rules, wholes, split_units(rules, "".join(wholes).encode()), START)


def _first_difference(encode: Encode, rules: SplitRules, wholes: list[str], split: Pieces, openers: str) -> str:
    """The first of some pieces whose parts, each whole's consecutive and opened by one of `openers`, have other tokens."""
    parts = [part for part, _ in split.texts()]
    heads, lines = zip(*(text_of(rules, piece) for piece in [*wholes, *parts]), strict=True)
    alone = [ids[len(before) :] for before, ids in zip(encode(list(heads)), encode(list(lines)), strict=True)]
    opening = [place for place, part in enumerate(parts, len(wholes)) if part[0] in openers] + [len(alone)]
    for place, (first, last) in enumerate(pairwise(opening)):
        if alone[place] != [old for part in alone[first:last] for old in part]:
            return wholes[place].removeprefix(START)
    return ""


def _sample(data: bytes) -> Iterator[str]:
    """The beginnings of units at some places."""
    mark = START.encode()
    for number in range(SAMPLES_PER_BLOCK):
        at = data.rfind(mark, 0, (2 * number + 1) * len(data) // (2 * SAMPLES_PER_BLOCK)) + 1
        end = data.find(mark, at)
        yield data[at : end if end >= 0 else None][:SAMPLE_BYTES].decode(errors="ignore")


def count_blocks(
    encode: Encode, rules: SplitRules, size: int, blocks: Iterable[TextBlock], limit_bytes: int = TABLE_BYTES
) -> tuple[np.ndarray, list[str]]:
    """Count the tokens of all blocks.

    size     vocabulary size
    Returns  counts (size,) int64, and the self-check's mismatches
    """
    counts = np.zeros(size, np.int64)
    # Encoder and columns let go of the interpreter, so that text is read, split and encoded at once.
    with ThreadPoolExecutor(1) as encoder, ThreadPoolExecutor(1) as splitter:
        table = ChunkTable(encode, rules, splitter, limit_bytes)
        running: Future[None] | None = None
        for pieces, whole in _handed_out(table, blocks):
            if running is not None:
                running.result()  # one table at a time, and its errors
            running = encoder.submit(_add_pieces, table, pieces, whole, counts)
        if running is not None:
            running.result()
    return counts, table.mismatches


def _add_pieces(table: ChunkTable, pieces: Pieces, whole: dict[str, int], counts: np.ndarray) -> None:
    add_encoded(table.encode, whole.items(), counts)
    if table.rules.tree and len(pieces):
        pieces = _parts_of_words(table, pieces)
    add_encoded(table.encode, lines_of(table.rules, pieces), counts)


def _parts_of_words(table: ChunkTable, words: Pieces) -> Pieces:
    """Distinct words split further, unless some of them show that this gives other tokens."""
    some = words.every(1 + len(words) // WORDS_CHECKED)
    wholes = [word for word, _ in some.texts()]
    mismatch = _first_difference(table.encode, table.rules, wholes, split_words(table.rules, some), START + " ")
    if mismatch:
        table.mismatches.append(mismatch)
        return words
    return distinct([split_words(table.rules, words)])


def _handed_out(table: ChunkTable, blocks: Iterable[TextBlock]) -> Iterator[tuple[Pieces, dict[str, int]]]:
    """What of all blocks must be encoded, as the table fills, and in the end."""
    for block in blocks:
        pieces, whole = table.add(block)
        if len(pieces) or whole:
            yield pieces, whole
    for pieces, whole in table.rest():
        if len(pieces) or whole:
            yield pieces, whole


def weighted_pieces(encode: Encode, rules: SplitRules, blocks: Iterable[TextBlock]) -> Iterator[tuple[str, int]]:
    """Yield pieces and whole units, and how often each occurs; units begin with START, as their openers do."""
    with ThreadPoolExecutor(1) as splitter:
        for pieces, whole in _handed_out(ChunkTable(encode, rules, splitter), blocks):
            yield from ((START + unit, weight) for unit, weight in whole.items())
            yield from pieces.texts()
