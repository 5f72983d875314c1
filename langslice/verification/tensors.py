"""The tensors of a slice: names, types and shapes on disk, the keys of the unmodified class, and every byte.

Bytes are compared through windows: peak memory does not grow with the model. Source and slice are read once each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from langslice.errors import CheckpointError
from langslice.files.float_types import narrow, wide
from langslice.files.gather_rows import sliced_shape
from langslice.model.checkpoint import Checkpoint, TensorEntry
from langslice.model.draft_head import D2T, T2D
from langslice.model.transformers_classes import loading_report
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.planning.tensors import tensor_edits
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.rotated_bytes import rotated_faults, turns_of
from langslice.writing.new_rows import RowMean
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from langslice.structure.hidden_size import Scaling

_WINDOW_BYTES = 4 << 20
_WHOLE_NUMBERS = (1, 2, 4, 8)  # bytes of an element that numpy moves at once


def check_tensors(source: Source, sliced: Checkpoint, edits: Mapping[str, TensorEdit]) -> Check:
    """Names, dtypes and shapes on disk are what the plan says, and so is the size that the index states.

    edits  what the plan makes of each tensor
    """
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, edit in edits.items():
        entry = source.checkpoint.tensors[name]
        if edit.action != "drop":
            expected[edit.name or name] = (entry.dtype, sliced_shape(entry.shape, edit.indices))
    found = {name: (entry.dtype, entry.shape) for name, entry in sliced.tensors.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in sorted(set(expected) | set(found))
        if expected.get(name) != found.get(name)
    ]
    stated, size = sliced.index_metadata.get("total_size"), sum(entry.size_bytes for entry in sliced.tensors.values())
    if stated is not None and stated != size:
        wrong.append(f"the index of the shards states {stated} bytes, the tensors have {size}")
    return Check("tensors", not wrong, f"{len(found)} tensors, names, dtypes and shapes", tuple(wrong[:MAX_EXAMPLES]))


def check_loading(checkpoint: Checkpoint, sliced: Checkpoint) -> Check:
    """The unmodified class, built on the meta device, misses no key that it did not miss in the source."""
    try:
        before = loading_report(checkpoint)
    except CheckpointError as error:
        return Check("loading", None, f"not run: {error}")
    try:
        after = loading_report(sliced)
    except CheckpointError as error:
        return Check("loading", False, "the unmodified class takes the source and not the slice", (str(error),))
    if before is None:
        return Check("loading", None, "config.json names no class that transformers has (`architectures`)")
    if after is None:
        return Check("loading", False, "config.json names a class that transformers has, and the slice's does not")
    wrong = [
        f"{kind}: {key}"
        for kind in ("missing", "unexpected", "mismatched")
        for key in sorted(after[kind] - before[kind])
    ]
    already = sum(len(before[kind]) for kind in before)
    note = f"; {already} keys that the source already misses or has too many" if already else ""
    detail = "no missing, unexpected or mismatched key in the unmodified class" + note
    return Check("loading", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def check_bytes(
    source: Source, sliced: Checkpoint, plan: SlicePlan, edits: Mapping[str, TensorEdit] | None = None
) -> Check:
    """Every row of every sliced tensor, and every byte of every kept one, equals the source's.

    edits  what the plan makes of each tensor, where that is known
    A tensor of another shape or type than planned is left to `check_tensors`; one that SparseGPT updated to nobody.
    """
    zeroed, scales = _zeros(source, plan), _scalings(source, plan)
    pruned = plan.pruned.get("tensors", {})
    updated = pruned if pruned and plan.pruned["request"].get("score") == "sparsegpt" else {}
    averaged = plan.averaged_rows
    edits = tensor_edits(plan, source) if edits is None else edits
    turns = turns_of(source, plan.structure)
    wrong = rotated_faults(source, sliced, plan.structure, turns, edits) if plan.structure and turns else []
    compared = 0
    for name, edit in edits.items():
        new_name = edit.name or name
        if name in turns:
            compared += sliced.tensors[new_name].size_bytes if new_name in sliced.tensors else 0
            continue
        mapped = source.draft is not None and name in (D2T, T2D) and edit.action == "slice"  # other numbers: drafts.py
        if edit.action == "drop" or new_name not in sliced.tensors or new_name in updated or mapped:
            continue
        old, new = source.checkpoint.tensors[name], sliced.tensors[new_name]
        if new.shape != sliced_shape(old.shape, edit.indices) or new.dtype != old.dtype:
            continue
        compared += new.size_bytes
        if edit.action == "keep" and name not in zeroed and new_name not in pruned:
            at = _first_difference(old, new)
            fault = "" if at is None else f"{new_name}: bytes differ from byte {at} on"
        else:
            axes = plan.tensors[name].axes or ()
            made = {dim: averaged for dim, axis in enumerate(axes) if axis == "vocab" and averaged}
            row = _first_wrong_row(
                old, new, edit.indices, zeroed.get(name, {}), made, scales.get(name), pruned=new_name in pruned
            )
            before = row if row is None or 0 not in edit.indices else int(edit.indices[0][row])
            what = _mean_text(averaged[row]) if 0 in made and row in averaged else f"old row {before}"
            fault = "" if row is None else f"{new_name}: new row {row} is not {what} of {name}"
        wrong += [fault] if fault else []
    detail = f"all rows of all tensors compared, {compared / 1e6:.1f} MB"
    return Check("bytes", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def _first_difference(old: TensorEntry, new: TensorEntry) -> int | None:
    """Where the bytes of two tensors begin to differ; None where they are equal, or the same bytes of a linked file."""
    if old.start == new.start and old.path.samefile(new.path):
        return None
    if old.size_bytes != new.size_bytes:
        return min(old.size_bytes, new.size_bytes)
    with old.path.open("rb") as left, new.path.open("rb") as right:
        for start in range(0, old.size_bytes, _WINDOW_BYTES):
            length = min(_WINDOW_BYTES, old.size_bytes - start)
            one = os.pread(left.fileno(), length, old.start + start)
            other = os.pread(right.fileno(), length, new.start + start)
            if one != other:
                both = zip(one, other, strict=False)
                return start + next((at for at, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))
    return None


def _first_wrong_row(
    old: TensorEntry,
    new: TensorEntry,
    indices: Mapping[int, np.ndarray],
    zeroed: Mapping[int, np.ndarray],
    made: Mapping[int, Mapping[int, RowMean]],
    scaling: Scaling | None,
    *,
    pruned: bool,
) -> int | None:
    """The first row of a written tensor that is not what the plan makes of the source's; None where all are.

    made  dimension -> index of the slice -> the mean of old indices that it is
    """
    row_bytes = max(prod(shape[1:]) for shape in (old.shape, new.shape)) * _element_bytes(new)
    step = max(1, _WINDOW_BYTES // max(row_bytes, 1))
    for start in range(0, new.shape[0], step):
        rows = np.arange(start, min(start + step, new.shape[0]))
        # Mapped anew for every window: pages of a mapping count as memory as long as it lives.
        taken = np.array(_elements(new)[rows[0] : rows[-1] + 1])
        expected = _expected_rows(_elements(old), indices, rows, zeroed, made, old.dtype)
        if scaling is not None:
            from langslice.structure.scaled_values import scaled

            expected = scaled(expected, old.dtype, scaling)
        if pruned:  # zeros anywhere; what is not zero is the source's
            expected = np.where(taken == 0, taken, expected)
        if not np.array_equal(taken, expected):
            differing = (taken != expected).any(axis=tuple(range(1, taken.ndim)))
            return int(rows[np.flatnonzero(differing)[0]])
    return None


def _expected_rows(
    old: np.ndarray,
    indices: Mapping[int, np.ndarray],
    rows: np.ndarray,
    zeroed: Mapping[int, np.ndarray],
    made: Mapping[int, Mapping[int, RowMean]],
    dtype: str,
) -> np.ndarray:
    """What the plan makes of a tensor at consecutive new rows."""
    expected = np.array(old[indices[0][rows]] if 0 in indices else old[rows[0] : rows[-1] + 1])
    for at, row in enumerate(rows.tolist()):
        if row in made.get(0, {}):
            expected[at] = _mean(old[list(made[0][row].rows)], dtype, 0, made[0][row].weights)
    for dim, stay in indices.items():
        if dim:
            before, expected = expected, np.take(expected, stay, axis=dim)
            for index, mean in made.get(dim, {}).items():
                taken = np.take(before, mean.rows, axis=dim)
                np.moveaxis(expected, dim, 0)[index] = _mean(taken, dtype, dim, mean.weights)
    for dim, gone in zeroed.items():
        np.moveaxis(expected, dim, 0)[np.isin(rows, gone) if dim == 0 else gone] = 0
    return expected


def _mean(raw: np.ndarray, dtype: str, axis: int, weights: Sequence[float]) -> np.ndarray:
    values = wide(raw, dtype, "F64")
    if not weights:
        return narrow(values.mean(axis=axis), dtype)
    parts = np.moveaxis(values, axis, 0)
    total = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = total + weight * part
    return narrow(total, dtype)


def _mean_text(mean: RowMean) -> str:
    return f"the weighted mean of {len(mean.rows)} rows" if mean.weights else "the mean of its pieces' rows"


def _zeros(source: Source, plan: SlicePlan) -> Mapping[str, Mapping[int, np.ndarray]]:
    """Where the slice holds zeros, by old name; nothing for most slices."""
    if plan.structure is None or not plan.structure.writes_zeros:
        return {}
    from langslice.structure.edits import zeros

    return zeros(source.anatomy, plan.structure, source.checkpoint.shapes)


def _scalings(source: Source, plan: SlicePlan) -> Mapping[str, Scaling]:
    """What the slice scales, by old name; nothing for most slices."""
    if plan.structure is None or not plan.structure.hidden:
        return {}
    from langslice.structure.hidden_size import scalings

    return scalings(source.anatomy, plan.structure, source.axes)


def _element_bytes(entry: TensorEntry) -> int:
    return entry.size_bytes // max(prod(entry.shape), 1)


def _elements(entry: TensorEntry) -> np.ndarray:
    """A read-only view of a tensor, each element as an unsigned number of its size."""
    item = _element_bytes(entry)
    if item not in _WHOLE_NUMBERS:
        return as_rows(entry, 0)
    if not entry.size_bytes:
        return np.empty(entry.shape, dtype=f"u{item}")
    return np.memmap(entry.path, dtype=f"u{item}", mode="r", offset=entry.start, shape=_at_least_one(entry.shape))


def _at_least_one(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape) or (1,)


def as_rows(entry: TensorEntry, dim: int) -> np.ndarray:
    """A read-only view of a tensor with dimension `dim` first, elements as raw bytes.

    Returns  uint8 (n, ..., bytes), n the length of `dim`, bytes those of an element
    """
    item = _element_bytes(entry)
    table = np.memmap(entry.path, dtype=np.uint8, mode="r", offset=entry.start, shape=(*entry.shape, item))
    return np.moveaxis(table, dim, 0)
