"""Whether rotated weights on disk are what the rotation makes of the source's, rounded to their type."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from langslice.model.checkpoint import Checkpoint
from langslice.planning.source import Source
from langslice.structure.kept import Kept
from langslice.structure.rotation import Turn, basis_of, cut_beside, refuse_rotation, turned
from langslice.structure.scaled_values import as_float64
from langslice.structure.written_zeros import opened
from langslice.writing.shards import TensorEdit

# One unit in the last place; a sum in another order may fall to the other side of a half.
_UNIT = {"F64": 2.0**-48, "F32": 2.0**-22, "F16": 2.0**-10, "BF16": 2.0**-7}
_SMALLEST = {"F16": 2.0**-24}  # steps of numbers below 2**-14


def turns_of(source: Source, kept: Kept | None) -> dict[str, Turn]:
    """Tensors (old names) that a slice rotates; none for most slices."""
    return refuse_rotation(source.anatomy, source.axes) if kept is not None and kept.rotation else {}


def rotated_faults(
    source: Source, sliced: Checkpoint, kept: Kept, turns: Mapping[str, Turn], edits: Mapping[str, TensorEdit]
) -> list[str]:
    """Which rotated tensors hold other values, one line each."""
    basis, wrong = basis_of(source.anatomy, kept), []
    for name, turn in turns.items():
        edit = edits[name]
        entry = sliced.tensors.get(edit.name or name)
        if edit.action == "drop" or entry is None:
            continue
        for start, values in turned(source.checkpoint, name, turn, cut_beside(turn, edit.indices), basis):
            found = as_float64(opened(entry, "r")[start : start + len(values)], entry.dtype)
            least = max(1e-9 * float(np.abs(values).max(initial=0.0)), _SMALLEST.get(entry.dtype, 0.0))
            if not np.allclose(found, values, rtol=_UNIT[entry.dtype], atol=least):
                wrong.append(f"{entry.name}: rows from {start} on are not the rotated ones of {name}")
                break
    return wrong
