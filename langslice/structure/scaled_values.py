"""Weights that a slice with fewer hidden dimensions scales, in the type that they are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.model.checkpoint import TensorEntry
from langslice.structure.hidden_size import Scaling
from langslice.structure.written_zeros import opened

_WINDOW_BYTES = 16 << 20
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
SCALABLE = (*_FLOATS, "BF16")


def write_scaled(tensors: Mapping[str, TensorEntry], scalings: Mapping[str, Scaling]) -> None:
    """Scale tensors on disk, a window of rows at a time.

    tensors  of the written checkpoint, whose files are its own and not links
    """
    for name, scaling in scalings.items():
        entry = tensors[name]
        table = opened(entry, "r+")
        step = max(1, _WINDOW_BYTES // max(1, table[:1].nbytes))
        for start in range(0, table.shape[0], step):
            window = table[start : start + step]
            window[...] = scaled(window, entry.dtype, scaling)
        table.flush()


def scaled(raw: npt.NDArray[Any], dtype: str, scaling: Scaling) -> npt.NDArray[Any]:
    """Elements of a float type, scaled in float64 and rounded to the nearest one of it.

    raw      (...) elements as unsigned numbers of their size, as the result is
    Raises   PlanError for a type that is no float
    """
    values = as_float64(raw, dtype)
    return rounded((values + scaling.offset) * scaling.factor - scaling.offset, dtype)


def rounded(values: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[Any]:
    """The nearest elements of a float type, as unsigned numbers of their size.

    values, result  (...)
    """
    if dtype != "BF16":
        kind = np.dtype(_FLOATS[dtype])
        return np.ascontiguousarray(values.astype(kind)).view(f"u{kind.itemsize}")
    bits = np.ascontiguousarray(values.astype("<f4")).view("<u4")
    upper: npt.NDArray[Any] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return upper


def as_float64(raw: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float64]:
    """Elements (...) of a float type, given as unsigned numbers of their size, as float64.

    Raises   PlanError for a type that is no float
    """
    if dtype not in SCALABLE:
        raise PlanError(
            f"weights stored as {dtype} cannot be scaled, as those of norms are where hidden dimensions go",
            hint="slice the model that was quantised and quantise the slice",
        )
    if dtype == "BF16":  # the upper half of a float32
        return (np.asarray(raw).astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.ascontiguousarray(raw).view(_FLOATS[dtype]).astype(np.float64)
