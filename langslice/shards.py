"""Stream tensors from a source checkpoint into a new one: byte ranges, gathers, fsync, rename."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from langslice.checkpoint import Checkpoint


@dataclass(frozen=True)
class TensorEdit:
    """What happens to one tensor.

    action   "keep" | "slice" | "drop"
    indices  for "slice": dimension -> int64 indices to gather along it, in output order (an index may repeat)
    reason   why, for "drop"
    """

    action: str
    indices: Mapping[int, np.ndarray] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class WriteReport:
    """Bytes and files that a rewrite produced.

    bytes_by_method  "gather" | "copy" | "reflink" | "link" -> bytes of output
    """

    files: tuple[str, ...]
    size_bytes: int
    bytes_by_method: Mapping[str, int]


@contextmanager
def staging_folder(out: Path, *, source: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary sibling of `out` that becomes `out` by rename when the block ends, and vanishes when it fails."""
    raise NotImplementedError
    yield


def output_size(checkpoint: Checkpoint, edits: Mapping[str, TensorEdit]) -> int:
    """Bytes of tensor data that `write_shards` would write."""
    raise NotImplementedError


def write_shards(
    checkpoint: Checkpoint,
    edits: Mapping[str, TensorEdit],
    out: Path,
    *,
    link: bool = False,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> WriteReport:
    """Write every tensor of the source, edited, as safetensors shards in `out`."""
    raise NotImplementedError
