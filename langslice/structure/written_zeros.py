"""Zeros in place of what a masked slice drops, written into shards that already are in the staging folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from langslice.errors import PlanError
from langslice.files.safetensors_header import DTYPE_BITS
from langslice.model.checkpoint import TensorEntry
from langslice.structure.edits import Indices

_WINDOW_BYTES = 16 << 20


def write_zeros(tensors: Mapping[str, TensorEntry], zeroed: Mapping[str, Mapping[int, Indices]]) -> None:
    """Set indices of tensors to zero on disk, a window of rows at a time.

    tensors  of the written checkpoint, whose files are its own and not links
    zeroed   tensor -> dimension -> indices
             each (n,) int64
    """
    for name, by_dim in zeroed.items():
        table = opened(tensors[name], "r+")
        step = max(1, _WINDOW_BYTES // max(1, table[:1].nbytes))
        for start in range(0, table.shape[0], step):
            window = table[start : start + step]
            for dim, indices in by_dim.items():
                if dim == 0:
                    window[indices[(indices >= start) & (indices < start + step)] - start] = 0
                else:
                    np.moveaxis(window, dim, 0)[indices] = 0
        table.flush()


def opened(entry: TensorEntry, mode: Literal["r", "r+"]) -> Any:
    """Elements of a tensor as unsigned integers of their size."""
    bits = DTYPE_BITS[entry.dtype]
    if bits % 8:
        raise PlanError(f"{entry.name}: {entry.dtype} packs several elements into a byte, which cannot be masked")
    return np.memmap(entry.path, np.dtype(f"u{bits // 8}"), mode, entry.start, entry.shape)
