"""Count how often each token occurs in text, encoding each distinct chunk once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langslice.tokenizer import SourceTokenizer


@dataclass(frozen=True)
class TokenCounts:
    """How often each token occurs.

    counts       (vocabulary size,) int64
    method       "chunks" (each distinct chunk encoded once) or "full" (every unit encoded)
    note         why "full" was chosen, else empty
    fingerprint  sha256 that ties the counts to a tokenizer's tokens
    """

    counts: np.ndarray
    units: int
    characters: int
    size_bytes: int
    method: str
    note: str
    fingerprint: str

    def save(self, path: Path) -> None:
        """Write as parquet: columns id, token, count; the rest as file metadata."""
        raise NotImplementedError


def load_counts(path: Path, tokenizer: SourceTokenizer) -> TokenCounts:
    """Read counts and check that they belong to this tokenizer."""
    raise NotImplementedError


def merge_counts(parts: Sequence[TokenCounts], weights: Sequence[float]) -> TokenCounts:
    """Add counts, each multiplied by its weight."""
    raise NotImplementedError


def distinct_chunks(tokenizer: SourceTokenizer, units: Iterable[str]) -> Iterable[list[tuple[str, int]]]:
    """Batches of (text, weight) whose weighted encodings add up to the encoding of all units."""
    raise NotImplementedError


def count_tokens(
    tokenizer: SourceTokenizer,
    units: Iterable[str],
    *,
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> TokenCounts:
    """Count the tokens of all units, type by type the same as encoding each unit whole."""
    raise NotImplementedError
