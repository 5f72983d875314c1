"""Scores of heads and neurons from the weights alone, read from the files by byte range; no model is loaded.

Heads: L1 or L2 norm of a head's rows of query, key and value and its columns of the output projection. With grouped
queries a head counts the keys and values of its group, which its group shares. Neurons: norm of a neuron's rows of the
first matrices (gate and up), summed over experts where a layer has them; the structured norm of
torch.nn.utils.prune.ln_structured along dimension 0.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import ScoreError
from langslice.model.anatomy import Anatomy, Heads
from langslice.model.checkpoint import Checkpoint, TensorEntry
from langslice.model.families import family_of
from langslice.progress import Report, silent
from langslice.scoring.table import Values
from langslice.structure.edits import along_heads

_WINDOW_BYTES = 16 << 20
# Axes of matrices that belong to heads.
_ROWS = frozenset({"heads", "kv_heads", "qkv", "kv"})
_NUMPY: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def head_norms(checkpoint: Checkpoint, anatomy: Anatomy, order: int, report: Report = silent) -> Values:
    """L1 (order 1) or L2 (order 2) norm of every head.

    Returns  attention -> layer -> (heads,) float64
    Raises   ScoreError for weights in a packed or quantised type
    """
    names = [
        name
        for name, place in anatomy.places.items()
        if len(anatomy.axes[name] or ()) == 2
        and _ROWS & set(anatomy.axes[name] or ())
        and place.layer in anatomy.heads.get(place.attention_key, {})
    ]
    sums: Values = {}
    for done, name in enumerate(names):
        report(f"reading weights, {done} of {len(names)} tensors", 0, 0)
        place, axes = anatomy.places[name], anatomy.axes[name] or ()
        axis = next(axis for axis in axes if axis in _ROWS)
        heads = anatomy.heads[place.attention_key][place.layer]
        rows = power_sums(checkpoint.tensors[name], axes.index(axis), order)
        layer = sums.setdefault(place.attention_key, {})
        layer[place.layer] = layer.get(place.layer, np.zeros(heads.query)) + rows_by_head(
            rows, axis, heads, anatomy.body.fused
        )
    return _norms(sums, order)


def neuron_norms(checkpoint: Checkpoint, anatomy: Anatomy, order: int, report: Report = silent) -> Values:
    """L1 (order 1) or L2 (order 2) norm of every neuron's rows of the first matrices.

    Returns  stack -> layer -> (neurons,) float64
    Raises   ScoreError for weights in a packed or quantised type
    """
    transposed = any(rule.layout == "conv1d" for rule in family_of(checkpoint.config).rules)
    sums: Values = {}
    for done, (name, place) in enumerate(anatomy.places.items()):
        report(f"reading weights, {done} of {len(anatomy.places)} tensors", 0, 0)
        axes = anatomy.axes[name] or ()
        axis = "gate_up" if "gate_up" in axes else "neurons"
        if len(axes) < 2 or axis not in axes or (axis == "neurons" and _is_second(axes, transposed)):
            continue
        rows = power_sums(checkpoint.tensors[name], axes.index(axis), order)
        width = anatomy.neurons[place.stack][place.layer]
        layer = sums.setdefault(place.stack, {})
        layer[place.layer] = layer.get(place.layer, np.zeros(width)) + rows.reshape(-1, width).sum(0)
    return _norms(sums, order)


def _is_second(axes: tuple[str, ...], transposed: bool) -> bool:
    """Whether a matrix leads from the neurons back to the residual stream; transposed ones are stored (in, out)."""
    at = axes.index("neurons") - (len(axes) - 2)
    return at == (0 if transposed else 1)


def _norms(sums: Values, order: int) -> Values:
    return {
        place: {layer: values ** (1 / order) for layer, values in sorted(layers.items())}
        for place, layers in sums.items()
    }


def rows_by_head(rows: npt.NDArray[np.float64], axis: str, heads: Heads, fused: str) -> npt.NDArray[np.float64]:
    """Sum values of rows (or columns) over the query heads that they belong to.

    rows     (length,) one value for each row along `axis`
    axis     "heads", "kv_heads", "qkv" or "kv"
    fused    order inside "qkv", as in Body
    Returns  (query heads,); a key-value head counts for every query head of its group
    Example  kv_heads, 4 query heads and 2 key-value heads of size 1: [5, 7] gives [5, 5, 7, 7]
    """
    sums = [rows[along_heads(axis, heads, fused, [head], [head // heads.group])].sum() for head in range(heads.query)]
    return np.asarray(sums, dtype=np.float64)


def power_sums(entry: TensorEntry, dim: int, order: int) -> npt.NDArray[np.float64]:
    """Sum |w|^order over all other dimensions, for each index along `dim`, reading at most 16 MB at a time.

    Returns   (n,) float64, n the length of `dim`
    Example   [[1, -2], [3, 0]] along dimension 0 at order 2: [5, 9]
    """
    if entry.dtype not in _NUMPY:
        raise ScoreError(
            f"{entry.name} is stored as {entry.dtype}; magnitudes are read from {', '.join(_NUMPY)} only",
            hint="score the model that was quantised, and use the scores' choice by hand",
        )
    dtype = _NUMPY[entry.dtype]
    # Windows run along the first dimension; the dimension asked for stays whole or is the one that is sliced.
    row_elements = max(prod(entry.shape[1:]), 1)
    step = max(_WINDOW_BYTES // (row_elements * dtype.itemsize), 1)
    total = np.zeros(entry.shape[dim])
    others = tuple(at for at in range(len(entry.shape)) if at != dim)
    with entry.path.open("rb") as file:
        file.seek(entry.start)
        for first in range(0, entry.shape[0], step):
            count = min(step, entry.shape[0] - first)
            raw = np.frombuffer(file.read(count * row_elements * dtype.itemsize), dtype)
            window = np.abs(_as_float(raw, entry.dtype).reshape(count, *entry.shape[1:]))
            summed = (window if order == 1 else window * window).sum(axis=others, dtype=np.float64)
            if dim == 0:
                total[first : first + count] = summed
            else:
                total += summed
    return total


def _as_float(raw: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.floating]:
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32) if dtype == "F16" else raw  # type: ignore[return-value]
