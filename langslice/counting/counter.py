"""Count tokens of blocks of units in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from langslice.counting.chunks import (
    CHUNK_TABLE_BYTES,
    ENTRY_BYTES,
    Cut,
    cut_block,
    cut_text,
    joined,
    table_bytes,
    take_rare,
)
from langslice.counting.cutting import ANCHOR, JOIN, MARKS, CutRules
from langslice.counting.encoding import Encode, add_encoded, lines_of

SAMPLES_PER_BLOCK = 4
SAMPLE_CHARACTERS = 1024

Block = list[tuple[str, int]]


@dataclass
class ChunkTable:
    """The distinct pieces of all blocks so far, bounded.

    limit_bytes  memory at which the rare pieces are handed out
    mismatches   texts of the self-check whose pieces gave other tokens; the blocks they stand in are not cut
    """

    encode: Encode
    rules: CutRules
    limit_bytes: int = CHUNK_TABLE_BYTES
    mismatches: list[str] = field(default_factory=list)
    pieces: Counter[str] = field(default_factory=Counter)
    held: float = 0.0

    def add(self, block: Block) -> tuple[dict[str, int], dict[str, int]]:
        """Add a block; give what must be encoded now: (pieces that no longer fit, whole units)."""
        mismatch = differing_sample(self.encode, self.rules, block)
        if mismatch:
            self.mismatches.append(mismatch)
            return {}, dict(block)
        cut = cut_block(self.rules, block)
        self._count(cut, sum(len(unit) for unit, _ in block))
        return (take_rare(self.pieces) if self._is_full() else {}), cut.whole

    def _count(self, cut: Cut, characters: int) -> None:
        before = len(self.pieces)
        cut.add_to(self.pieces)
        growth = len(self.pieces) - before
        share = growth / max(1, cut.number)
        self.held += (
            growth * (ENTRY_BYTES + 70) + 2 * characters * share
        )  # about; `_is_full` measures before it says yes

    def _is_full(self) -> bool:
        if self.held < self.limit_bytes:
            return False
        self.held = table_bytes(self.pieces)
        full = self.held > self.limit_bytes * 3 / 4
        if full:
            self.held /= 2
        return full


def differing_sample(encode: Encode, rules: CutRules, block: Block) -> str:
    """Encode a few texts of a block whole and in pieces; give the first whose tokens differ, or ""."""
    step = max(1, len(block) // SAMPLES_PER_BLOCK)
    texts = [unit[:SAMPLE_CHARACTERS] for unit, _ in block[step // 2 :: step]]
    texts = [text for text in texts if text and not rules.has_added_token(text) and not set(MARKS) & set(text)]
    pieces = [cut_text(rules, joined([text])) for text in texts]
    flat = [ANCHOR + (piece[1:] if piece[0:1] == JOIN else f" {piece}") for group in pieces for piece in group[1:]]
    ids = encode([ANCHOR, *texts, *(group[0][1:] for group in pieces), *flat])
    anchor, wholes, firsts = ids[0], ids[1 : len(texts) + 1], ids[len(texts) + 1 : 2 * len(texts) + 1]
    later = iter(ids[2 * len(texts) + 1 :])
    for text, whole, first, group in zip(texts, wholes, firsts, pieces, strict=True):
        parts = list(first)
        for _ in group[1:]:
            parts += next(later)[len(anchor) :]
        if parts != whole:
            return text
    return ""


def count_blocks(
    encode: Encode, rules: CutRules, size: int, blocks: Iterable[Block], limit_bytes: int = CHUNK_TABLE_BYTES
) -> tuple[np.ndarray, list[str]]:
    """Count the tokens of all blocks.

    size     vocabulary size
    Returns  counts (size,) int64, and the self-check's mismatches
    """
    counts = np.zeros(size, np.int64)
    if rules.reason:
        for block in blocks:
            add_encoded(encode, block, counts)
        return counts, []
    table = ChunkTable(encode, rules, limit_bytes)
    with ThreadPoolExecutor(1) as encoder:  # the library's encoder lets go of the interpreter, so text is cut meanwhile
        running: Future[None] | None = None
        for block in blocks:
            pieces, whole = table.add(block)
            if pieces or whole:
                if running is not None:
                    running.result()  # one table at a time, and its errors
                running = encoder.submit(_add_pieces, encode, rules, pieces, whole, counts)
        if running is not None:
            running.result()
    _add_pieces(encode, rules, table.pieces, {}, counts)
    return counts, table.mismatches


def _add_pieces(
    encode: Encode, rules: CutRules, pieces: dict[str, int], whole: dict[str, int], counts: np.ndarray
) -> None:
    add_encoded(encode, whole.items(), counts)
    add_encoded(encode, lines_of(rules, pieces), counts)


def weighted_texts(encode: Encode, rules: CutRules, blocks: Iterable[Block]) -> Iterator[dict[str, int]]:
    """Yield tables of pieces and of whole units; these begin with START, as the openers of units do."""
    table = ChunkTable(encode, rules)
    for block in blocks:
        pieces, whole = table.add(block)
        if whole:
            yield {"\x02" + unit: weight for unit, weight in whole.items()}
        if pieces:
            yield pieces
    if table.pieces:
        yield table.pieces
