"""Gather indices of a tensor on disk into another file, through windows of fixed size.

Nothing here depends on dtypes: elements are moved as 1, 2, 4 or 8 bytes. Memory is two windows a thread, whatever the
tensor's size; rows longer than a window are gathered piece by piece. Ranges that are kept whole never come here
(copy_ranges.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from langslice.files.copy_ranges import Progress, read_into, release, write_all

WINDOW_BYTES = 8 << 20  # two of them a thread; 16 MB were not faster
# Unwanted bytes between two wanted rows that are read along with them, because a second read would cost more.
GAP_BYTES = 128 << 10

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gather:
    """A piece of a gather that fits the windows.

    start, target_start   byte offsets of the source (sub)tensor and of this piece's output
    shape                 of the source (sub)tensor
    rows                  source indices along its first dimension, in output order
    inner                 dimension (> 0) -> source indices
    itemsize              bytes an element: 1, 2, 4 or 8
    """

    start: int
    shape: tuple[int, ...]
    rows: Indices
    inner: Mapping[int, Indices]
    itemsize: int
    target_start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a source row."""
        return math.prod(self.shape[1:]) * self.itemsize

    @property
    def output_row_bytes(self) -> int:
        """Bytes of an output row."""
        sizes = [len(self.inner[dim]) if dim in self.inner else size for dim, size in enumerate(self.shape) if dim]
        return math.prod(sizes) * self.itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes of output."""
        return len(self.rows) * self.output_row_bytes


def sliced_shape(shape: Sequence[int], indices: Mapping[int, Indices]) -> tuple[int, ...]:
    """Shape after a gather.

    Example   sliced_shape((10, 4), {0: array([7, 2, 2])}) == (3, 4)
    """
    return tuple(len(indices[dim]) if dim in indices else size for dim, size in enumerate(shape))


def split_gather(
    start: int, shape: tuple[int, ...], indices: Mapping[int, Indices], itemsize: int, target_start: int,
    window_bytes: int = WINDOW_BYTES,
) -> Iterator[Gather]:  # fmt: skip
    """Cut a gather into pieces whose rows and output fit one window each.

    shape     of the source tensor, at least one dimension
    indices   dimension -> int64 indices, in output order; other dimensions stay whole
              each (n,), along its dimension
    """
    rows = indices[0] if 0 in indices else np.arange(shape[0], dtype=np.int64)
    inner = {dim: values for dim, values in indices.items() if dim}
    whole = Gather(start, shape, rows, inner, itemsize, target_start)
    if whole.size_bytes == 0:
        return
    widest = max(whole.row_bytes, whole.output_row_bytes)
    if widest > window_bytes:
        below = {dim - 1: values for dim, values in inner.items()}
        for position, row in enumerate(rows.tolist()):
            row_target = target_start + position * whole.output_row_bytes
            yield from split_gather(start + row * whole.row_bytes, shape[1:], below, itemsize, row_target, window_bytes)
        return
    count = window_bytes // widest
    for first in range(0, len(rows), count):
        target = target_start + first * whole.output_row_bytes
        yield Gather(start, shape, rows[first : first + count], inner, itemsize, target)


class Windows:
    """The two reusable buffers of one thread."""

    def __init__(self, window_bytes: int = WINDOW_BYTES) -> None:
        self.read = np.empty(window_bytes, np.uint8)
        self.write = np.empty(window_bytes, np.uint8)


def gather(source: int, target: int, piece: Gather, windows: Windows, progress: Progress) -> None:
    """Read one piece's rows, take its indices, and write it.

    source, target   open file descriptors
    Raises           CheckpointError when the source ends early; OSError from the target
    """
    output = windows.write[: piece.size_bytes].reshape(len(piece.rows), piece.output_row_bytes)
    order = None if _ascending(piece.rows) else np.argsort(piece.rows, kind="stable")
    rows = piece.rows if order is None else piece.rows[order]
    for first, stop in _reads(rows, piece.row_bytes, len(windows.read)):
        low, high = int(rows[first]), int(rows[stop - 1]) + 1
        block = windows.read[: (high - low) * piece.row_bytes]
        read_into(source, block.data, piece.start + low * piece.row_bytes)
        if order is None:
            release(source, piece.start + low * piece.row_bytes, block.size)
        local = rows[first:stop] - low
        if order is None and not piece.inner:
            # mode="clip" lets numpy write straight into `out`; the indices were checked before
            np.take(block.reshape(high - low, piece.row_bytes), local, axis=0, out=output[first:stop], mode="clip")
        else:
            places = slice(first, stop) if order is None else order[first:stop]
            output[places] = _take(block, piece, high - low, local)
    write_all(target, output.data.cast("B"), piece.target_start)
    release(target, piece.target_start, piece.size_bytes)
    progress(piece.size_bytes)


def _take(block: npt.NDArray[np.uint8], piece: Gather, count: int, local: Indices) -> npt.NDArray[np.uint8]:
    """Take rows, then the indices of every other dimension; returns (rows, output_row_bytes) uint8."""
    if not piece.inner:
        return block.reshape(count, piece.row_bytes)[local]
    items = block.view(f"u{piece.itemsize}").reshape(count, *piece.shape[1:])
    for dim, values in sorted(piece.inner.items(), key=lambda item: len(item[1]) / max(piece.shape[item[0]], 1)):
        items = np.take(items, values, axis=dim)
    if len(local) != count or not np.array_equal(local, np.arange(count)):
        items = np.take(items, local, axis=0)
    return np.ascontiguousarray(items).view(np.uint8).reshape(len(local), piece.output_row_bytes)


def _ascending(rows: Indices) -> bool:
    return bool(np.all(rows[1:] >= rows[:-1]))


def _reads(rows: Indices, row_bytes: int, window_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut ascending rows into [first, stop) positions that are worth one read each and fit the window.

    Example   rows 0 1 2 900, rows of 1 KB: (0, 3) and (3, 4), because the gap is longer than GAP_BYTES
    """
    gaps = np.flatnonzero(np.diff(rows) * row_bytes > GAP_BYTES + row_bytes) + 1
    for begin, end in zip([0, *gaps.tolist()], [*gaps.tolist(), len(rows)], strict=True):
        first = begin
        while first < end:
            limit = int(rows[first]) + window_bytes // row_bytes
            stop = int(np.searchsorted(rows[first:end], limit, side="left")) + first
            yield first, stop
            first = stop
