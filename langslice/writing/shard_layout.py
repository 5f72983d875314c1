"""Where every byte of an output shard comes from and goes to, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from langslice.files.copy_ranges import CLONE_BLOCK_BYTES, clone_part
from langslice.files.gather_rows import Indices, sliced_shape
from langslice.files.safetensors_header import (
    DTYPE_BITS,
    HEADER_ALIGNMENT,
    TensorEntry,
    build_header,
    tensor_size_bytes,
)
from langslice.model.checkpoint import Shard


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of an output shard.

    start     offset of its first byte in the output file
    indices   dimension -> int64 indices; {} when it is kept whole
    """

    name: str
    shape: tuple[int, ...]
    size_bytes: int
    start: int
    source: TensorEntry
    indices: Mapping[int, Indices]


@dataclass(frozen=True)
class ByteRun:
    """Bytes that are contiguous in the source file and in the output file."""

    path: Path
    start: int
    size_bytes: int
    target_start: int


@dataclass(frozen=True)
class ShardLayout:
    """One output shard.

    method    "link" | "reflink" (the whole source file), or "write"
    header    bytes of its header, for "write"
    runs      kept bytes, for "write"
    reflink   whether aligned parts of runs can be shared instead of copied
    """

    name: str
    source: Path
    method: str
    tensors: tuple[OutputTensor, ...]
    header: bytes
    runs: tuple[ByteRun, ...]
    reflink: bool

    @property
    def data_bytes(self) -> int:
        """Bytes of tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def unshared_bytes(self) -> int:
        """Bytes that need room of their own on the disk."""
        if self.method != "write":
            return 0
        shared = (
            sum(clone_part(run.start, run.size_bytes, run.target_start)[1] for run in self.runs) if self.reflink else 0
        )
        return len(self.header) + self.data_bytes - shared


def lay_out(
    shard: Shard,
    name: str,
    kept: Iterable[TensorEntry],
    names: Mapping[str, str],
    indices: Mapping[str, Mapping[int, Indices]],
    method: str,
    reflink: bool,
    untouched: bool,
) -> ShardLayout:
    """Decide the order, header and byte ranges of an output shard.

    kept       the shard's tensors that are not dropped, in file order
    names      name -> name in the output
    indices    name -> dimension -> (n,) int64 indices; {} for a tensor kept whole
    untouched  copy the file as it is, header included
    """
    shapes = {tensor.name: sliced_shape(tensor.shape, indices[tensor.name]) for tensor in kept}
    sizes = {tensor.name: tensor_size_bytes(tensor.dtype, shapes[tensor.name]) for tensor in kept}
    ordered = list(kept) if untouched else _aligned_order(list(kept), sizes)
    offsets = _offsets(ordered, sizes)
    if untouched:
        header = _header_of(shard.path, sum(sizes.values()))
    else:
        modulo = _sharing_remainder(_runs(ordered, indices, offsets, 0)) if reflink else (HEADER_ALIGNMENT, 0)
        described = ((names[tensor.name], tensor.dtype, shapes[tensor.name], sizes[tensor.name]) for tensor in ordered)
        header = build_header(described, {"format": "pt", **shard.metadata}, modulo)
    tensors = tuple(
        OutputTensor(names[t.name], shapes[t.name], sizes[t.name], len(header) + offsets[t.name], t, indices[t.name])
        for t in ordered
    )
    runs = _runs(ordered, indices, offsets, len(header))
    return ShardLayout(name, shard.path, method, tensors, header, runs, reflink)


def _header_of(path: Path, data_bytes: int) -> bytes:
    """Read the header as it is; it is all that the data leave of the file."""
    with path.open("rb") as file:
        return file.read(path.stat().st_size - data_bytes)


def _offsets(tensors: Iterable[TensorEntry], sizes: Mapping[str, int]) -> dict[str, int]:
    offsets, position = {}, 0
    for tensor in tensors:
        offsets[tensor.name] = position
        position += sizes[tensor.name]
    return offsets


def _aligned_order(tensors: list[TensorEntry], sizes: Mapping[str, int]) -> list[TensorEntry]:
    """Keep the source's order unless it would put a tensor off its alignment, which torch refuses to view.

    Example   U8 (3,) then F32 (2,): F32 goes first
    """
    offsets = _offsets(tensors, sizes)
    if all(offsets[tensor.name] % max(DTYPE_BITS[tensor.dtype] // 8, 1) == 0 for tensor in tensors):
        return tensors
    return sorted(tensors, key=lambda tensor: -DTYPE_BITS[tensor.dtype])


def _runs(
    tensors: Iterable[TensorEntry],
    indices: Mapping[str, Mapping[int, Indices]],
    offsets: Mapping[str, int],
    data_start: int,
) -> tuple[ByteRun, ...]:
    """Join kept tensors that follow each other in both files."""
    runs: list[ByteRun] = []
    for tensor in tensors:
        if indices[tensor.name] or tensor.size_bytes == 0:
            continue
        target = data_start + offsets[tensor.name]
        last = runs[-1] if runs else None
        if (
            last is not None
            and last.path == tensor.path
            and last.start + last.size_bytes == tensor.start
            and last.target_start + last.size_bytes == target
        ):
            runs[-1] = ByteRun(last.path, last.start, last.size_bytes + tensor.size_bytes, last.target_start)
        else:
            runs.append(ByteRun(tensor.path, tensor.start, tensor.size_bytes, target))
    return tuple(runs)


def _sharing_remainder(runs: tuple[ByteRun, ...]) -> tuple[int, int]:
    """Choose where data start, modulo a block, so that the longest run can be shared instead of copied.

    runs   with target offsets counted from the first byte of data
    """
    longest = max(runs, key=lambda run: run.size_bytes, default=None)
    if longest is None or longest.size_bytes < 2 * CLONE_BLOCK_BYTES:
        return HEADER_ALIGNMENT, 0
    remainder = (longest.start - longest.target_start) % CLONE_BLOCK_BYTES
    return (CLONE_BLOCK_BYTES, remainder) if remainder % HEADER_ALIGNMENT == 0 else (HEADER_ALIGNMENT, 0)
