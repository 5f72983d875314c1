"""Rows of tokens that the source does not have, written over the rows that were gathered in their place.

A new token's row is the mean of its pieces' rows, or a weighted mean of other rows: embedding, output head and bias alike.
Source: Gee et al. 2022, "Fast Vocabulary Transfer for Language Model Compression", https://arxiv.org/abs/2402.09977; for weights
see vocabulary/similar_tokens.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.files.float_types import narrow, wide
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry


@dataclass(frozen=True)
class RowMean:
    """Rows that a row is the mean of.

    weights  of each, adding up to 1; () for all alike
    """

    rows: tuple[int, ...]
    weights: tuple[float, ...] = ()


def mean_of(values: npt.NDArray[np.floating[Any]], weights: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """The mean over the first axis (n, ...), summed in order, so that the bits do not depend on where the axis was in memory."""
    if not weights:
        return np.asarray(values.mean(axis=0))
    found = np.zeros(values.shape[1:])
    for weight, row in zip(weights, values, strict=True):
        found += weight * row
    return found


def write_new_rows(written: TensorEntry, dim: int, rows: Mapping[int, RowMean]) -> None:
    """Write each row that is a mean into a tensor of the output, in place and to the disk.

    written  a tensor that this job owns, of a float type
    dim      its dimension that runs along the vocabulary
    rows     new row -> the rows of this tensor that it is the mean of, which is computed in float64
    """
    bits = f"u{DTYPE_BITS[written.dtype] // 8}"
    table = np.memmap(written.path, dtype=bits, mode="r+", offset=written.start, shape=written.shape)
    along = np.moveaxis(table, dim, 0)
    for row, mean in rows.items():
        values = wide(np.array(along[list(mean.rows)]), written.dtype, "F64")
        along[row] = narrow(mean_of(values, mean.weights), written.dtype)
    table.flush()
