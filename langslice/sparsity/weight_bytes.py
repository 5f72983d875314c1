"""Read tensors of safetensors files into memory, and overwrite them in place.

Only bytes of the named tensors change; a file keeps its size and header. Zeros are written as zero bytes, which is +0 in
every float type. The folder is a copy that the job owns: a user's source is never opened for writing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CheckpointError
from langslice.files.copy_ranges import write_all
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_KINDS = {**FLOATS, "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
WINDOW_BYTES = 16 << 20


def read_tensor(entry: TensorEntry, into: Any | None = None) -> Any:
    """Read a tensor as float32 (integers and booleans as they are).

    into    float32 tensor of the same shape that is overwritten and returned
    Raises  CheckpointError for a type that torch cannot compute with here
    """
    if into is None or entry.dtype not in FLOATS:
        return _to_tensor(_read(entry, entry.start, entry.size_bytes), entry, entry.shape)
    flat = into.view(-1)
    itemsize = DTYPE_BITS[entry.dtype] // 8
    step = WINDOW_BYTES // itemsize
    for first in range(0, flat.numel(), step):
        part = flat[first : first + step]
        raw = _read(entry, entry.start + first * itemsize, part.numel() * itemsize)
        part.copy_(_as_stored(raw, entry))
    return into


def read_rows(entry: TensorEntry, rows: npt.NDArray[np.int64]) -> Any:
    """Read some rows of a matrix as float32, in the order given.

    rows     (n,) int64
    Returns  torch float32 (n, inputs)
    """
    row_bytes = entry.size_bytes // entry.shape[0]
    raw = np.empty((rows.size, row_bytes), dtype=np.uint8)
    descriptor = os.open(entry.path, os.O_RDONLY)
    try:
        for position, row in enumerate(rows.tolist()):
            _read_into(descriptor, raw[position], entry.start + row * row_bytes, entry)
    finally:
        os.close(descriptor)
    return _to_tensor(raw.reshape(-1), entry, (rows.size, *entry.shape[1:]))


def zero_rows(descriptor: int, entry: TensorEntry, first: int, mask: npt.NDArray[np.bool_]) -> None:
    """Zero the marked elements of consecutive rows, and write back what lies between the first and the last.

    descriptor  of the tensor's file, open for reading and writing
    first       the row that the mask begins at
    mask        bool (rows, columns) as the tensor is stored
    """
    columns = entry.shape[1]
    itemsize = DTYPE_BITS[entry.dtype] // 8
    window = max(WINDOW_BYTES // (columns * itemsize), 1)
    for start in range(0, mask.shape[0], window):
        part = mask[start : start + window]
        raw = np.empty(part.size * itemsize, dtype=np.uint8)
        position = entry.start + (first + start) * columns * itemsize
        _read_into(descriptor, raw, position, entry)
        bits = raw.view(f"u{itemsize}")
        np.multiply(bits, ~part.reshape(-1), out=bits)  # many times faster than assigning where marked
        write_all(descriptor, raw.data, position)


def write_tensor(descriptor: int, entry: TensorEntry, data: bytes | memoryview) -> None:
    """Overwrite a whole tensor with bytes in its own type."""
    if len(data) != entry.size_bytes:
        raise ValueError(f"{entry.name} takes {entry.size_bytes} bytes, not {len(data)}")
    write_all(descriptor, data, entry.start)


def stored_bytes(tensor: Any, entry: TensorEntry) -> memoryview:
    """A float32 tensor as bytes of the type that the checkpoint stores it in."""
    import torch

    converted = tensor.to(getattr(torch, FLOATS[entry.dtype])).contiguous()
    return memoryview(converted.view(torch.uint8).numpy().reshape(-1)).cast("B")


def read_bytes(entry: TensorEntry, offset: int, size_bytes: int) -> npt.NDArray[np.uint8]:
    """Read some bytes of a tensor as they are stored.

    Returns  (size_bytes,) uint8
    """
    return _read(entry, entry.start + offset, size_bytes)


def rounded(data: memoryview, entry: TensorEntry) -> Any:
    """Bytes of a tensor's own type as float32, in its shape."""
    return _to_tensor(np.frombuffer(data, dtype=np.uint8).copy(), entry, entry.shape)


def count_zeros(entry: TensorEntry) -> int:
    """Elements that are +0 or -0, counted from the file in windows."""
    itemsize = DTYPE_BITS[entry.dtype] // 8
    zeros, kind = 0, np.dtype(f"u{itemsize}")
    shift = np.array(1, dtype=kind)
    for offset in range(0, entry.size_bytes, WINDOW_BYTES):
        raw = _read(entry, entry.start + offset, min(WINDOW_BYTES, entry.size_bytes - offset))
        # The sign bit is shifted out: -0 is a zero too.
        values = raw.view(kind)
        zeros += values.size - int(np.count_nonzero(np.left_shift(values, shift)))
    return zeros


@contextmanager
def writing(entries: list[TensorEntry]) -> Iterator[dict[Path, int]]:
    """Open the files of these tensors for reading and writing; sync and close them at the end."""
    descriptors: dict[Path, int] = {}
    try:
        for entry in entries:
            if entry.path not in descriptors:
                descriptors[entry.path] = os.open(entry.path, os.O_RDWR)
        yield descriptors
        for descriptor in descriptors.values():
            os.fsync(descriptor)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _read(entry: TensorEntry, position: int, size_bytes: int) -> npt.NDArray[np.uint8]:
    raw = np.empty(size_bytes, dtype=np.uint8)
    descriptor = os.open(entry.path, os.O_RDONLY)
    try:
        _read_into(descriptor, raw, position, entry)
    finally:
        os.close(descriptor)
    return raw


def _read_into(descriptor: int, raw: npt.NDArray[np.uint8], position: int, entry: TensorEntry) -> None:
    view = raw.data
    done = 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done:]], position + done)
        if got == 0:
            raise CheckpointError(
                f"{entry.path.name} ended inside tensor {entry.name}\n  {entry.path}\n"
                f"  expected {len(view):,} bytes from {position:,}, found {done:,}",
                "the file changed while it was read; try again",
            )
        done += got


def _to_tensor(raw: npt.NDArray[np.uint8], entry: TensorEntry, shape: tuple[int, ...]) -> Any:
    import torch

    if entry.dtype not in _KINDS:
        raise CheckpointError(
            f"tensor {entry.name} is stored as {entry.dtype}\n  in {entry.path.name}\n"
            f"  expected one of {', '.join(FLOATS)}",
            "weights of quantised models cannot be pruned; start from the full-precision model",
        )
    if raw.size == 0:
        return torch.empty(shape, dtype=torch.float32)
    tensor = _as_stored(raw, entry).view(shape)
    return tensor.to(torch.float32) if entry.dtype in FLOATS else tensor


def _as_stored(raw: npt.NDArray[np.uint8], entry: TensorEntry) -> Any:
    """Bytes as a flat tensor of the type that they are stored in."""
    import torch

    return torch.from_numpy(raw).view(getattr(torch, _KINDS[entry.dtype]))
