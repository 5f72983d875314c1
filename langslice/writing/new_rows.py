"""Rows of tokens that the source does not have, written over the rows that were gathered in their place.

A new token's row is the mean of its pieces' rows: embedding, output head and bias alike.
Source: Gee et al. 2022, "Fast Vocabulary Transfer for Language Model Compression", https://arxiv.org/abs/2402.09977.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langslice.files.float_types import narrow, wide
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry


def write_new_rows(written: TensorEntry, dim: int, rows: Mapping[int, Sequence[int]]) -> None:
    """Write each row that is a mean into a tensor of the output, in place and to the disk.

    written  a tensor that this job owns, of a float type
    dim      its dimension that runs along the vocabulary
    rows     new row -> the rows of this tensor that it is the mean of, which is computed in float64
    """
    bits = f"u{DTYPE_BITS[written.dtype] // 8}"
    table = np.memmap(written.path, dtype=bits, mode="r+", offset=written.start, shape=written.shape)
    along = np.moveaxis(table, dim, 0)
    for row, pieces in rows.items():
        along[row] = narrow(wide(np.array(along[list(pieces)]), written.dtype, "F64").mean(axis=0), written.dtype)
    table.flush()
