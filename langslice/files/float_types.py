"""Float types as raw bits: numpy has no bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.files.safetensors_header import DTYPE_BITS

# Conversions that lose nothing: a float type -> the types that hold every value of it.
WIDER = {"F16": ("F32", "F64"), "BF16": ("F32", "F64"), "F32": ("F64",)}
FLOATS = (*WIDER, "F64")


def wide(raw: npt.NDArray[np.unsignedinteger], before: str, after: str) -> npt.NDArray[np.floating]:
    """Values (n,) of a float type, given as raw bits (n,), in a wider one; any shape, which stays."""
    if before == "BF16":  # the upper half of a float32
        values = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.view(f"f{DTYPE_BITS[before] // 8}")
    return values.astype(f"f{DTYPE_BITS[after] // 8}")


def narrow(values: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[Any]:
    """Raw bits (n,) of values (n,), rounded to the nearest that a type has, to the even one of two; BF16 by way of float32."""
    if dtype != "BF16":
        return values.astype(f"f{DTYPE_BITS[dtype] // 8}").view(f"u{DTYPE_BITS[dtype] // 8}")
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
