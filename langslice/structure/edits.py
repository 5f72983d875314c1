"""What a structural slice does to each tensor: a new name, and which indices stay along which dimension."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.model.anatomy import HEAD_AXES, NEURON_AXES, OUTPUT, Anatomy, Heads, TensorLocation
from langslice.model.body import with_expert
from langslice.structure.kept import Kept
from langslice.writing.shards import TensorEdit

Indices = npt.NDArray[np.int64]
# Axes whose entries another layer may need, or that scale what a zeroed head puts out anyway: never zeroed.
_NOT_ZEROED = frozenset({"num_heads", "num_kv_heads"})


def layer_edits(anatomy: Anatomy, kept: Kept, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorEdit]:
    """Edits of all tensors that are in a layer, or hold a part for each; vocabularies are not looked at.

    Raises   PlanError for a tensor of a sliced layer of which the table does not know the axes
    """
    edits: dict[str, TensorEdit] = {}
    for name, place in anatomy.places.items():
        new_name, indices = name, {}
        if _owns_first_bias(anatomy, name):
            # Stock code looks for it in block 0, whichever block that was.
            # With per-layer sizes it keeps the columns of all heads, of which each block takes its own.
            if kept.style == "stock":
                indices = _indices(anatomy, kept, name, place, shapes[name])
        elif not kept.keeps_layer(place.stack, place.layer):
            edits[name] = TensorEdit("drop", reason=f"layer {place.layer} of the {place.stack} stack is not kept")
            continue
        elif not _keeps_expert(kept, place):
            edits[name] = TensorEdit("drop", reason="its expert is not kept")
            continue
        else:
            new_name = f"{place.before}{kept.new_layer(place.stack, place.layer)}.{new_rest(kept, place)}"
            if kept.style != "masked":
                indices = _indices(anatomy, kept, name, place, shapes[name])
        edits[name] = TensorEdit("slice" if indices else "keep", indices, name="" if new_name == name else new_name)
    return edits | _table_edits(anatomy, kept, shapes)


def _keeps_expert(kept: Kept, place: TensorLocation) -> bool:
    """Whether the expert stays that a tensor belongs to alone, where it belongs to one."""
    stay = kept.experts.get(place.stack, {}).get(place.layer)
    return stay is None or place.expert is None or place.expert in stay


def new_rest(kept: Kept, place: TensorLocation) -> str:
    """What the name of a tensor has after the number of its layer: experts that stay are counted anew."""
    stay = kept.experts.get(place.stack, {}).get(place.layer)
    if stay is None or place.expert is None:
        return place.rest
    return with_expert(place.rest, stay.index(place.expert))


def _table_edits(anatomy: Anatomy, kept: Kept, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorEdit]:
    """Edits of tensors outside of the layers that hold an equal part for each of them, one after the other."""
    edits: dict[str, TensorEdit] = {}
    for stack, stay in kept.layers.items():
        for end, dim in anatomy.body.tables.items():
            for name in shapes:
                if name not in anatomy.places and re.fullmatch(rf"(?:.*\.)?(?:{end})", name):
                    edits[name] = TensorEdit("slice", {dim: _expand(stay, shapes[name][dim] // anatomy.layers[stack])})
    return edits


def _masked(anatomy: Anatomy, kept: Kept, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[int, Indices]]:
    """What masking zeroes: tensor (old name) -> dimension -> old indices; pruned rows included.

    All of a head goes, its output columns included, so that it adds nothing whatever its input; but where a norm spans the
    queries of all heads, theirs must stay, or the others would be divided by less: the output columns alone go then.
    """
    removed: dict[str, dict[int, Indices]] = {}
    for name, place in anatomy.places.items():
        if not kept.keeps_layer(place.stack, place.layer):
            continue
        pruned = kept.zeroed.get(name, {})
        for dim, rows in pruned.items():
            removed.setdefault(name, {})[dim] = np.asarray(rows, dtype=np.int64)
        axes = anatomy.axes[name] or ()
        if _NOT_ZEROED & set(axes) or (anatomy.body.norm_all and HEAD_AXES & set(axes) and axes != OUTPUT):
            continue
        for dim, stay in _indices(anatomy, kept, name, place, shapes[name]).items():
            gone = np.setdiff1d(np.arange(shapes[name][dim], dtype=np.int64), stay)
            if gone.size:
                removed.setdefault(name, {})[dim] = np.union1d(gone, np.asarray(pruned.get(dim, ()), dtype=np.int64))
    return removed


def zeros(anatomy: Anatomy, kept: Kept, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[int, Indices]]:
    """Where the written slice holds zeros: tensor (old name) -> dimension -> indices in the written tensor.

    Returns  indices (n,) int64
    """
    if kept.style == "masked":
        return _masked(anatomy, kept, shapes)
    found: dict[str, dict[int, Indices]] = {}
    for name, by_dim in kept.zeroed.items():
        stay = _indices(anatomy, kept, name, anatomy.places[name], shapes[name])
        for dim, rows in by_dim.items():
            gone = np.asarray(rows, dtype=np.int64)
            if dim in stay:
                gone = np.flatnonzero(np.isin(stay[dim], gone))
            found.setdefault(name, {})[dim] = gone
    return found


def _owns_first_bias(anatomy: Anatomy, name: str) -> bool:
    return anatomy.body.first_bias and "relative_attention_bias" in name


def _indices(
    anatomy: Anatomy, kept: Kept, name: str, place: TensorLocation, shape: tuple[int, ...]
) -> dict[int, Indices]:
    """Old indices that stay along each dimension that is sliced."""
    layer = place.layer
    if _owns_first_bias(anatomy, name):
        # All layers that stay have the same heads: `express` has seen to that.
        layer = min(kept.heads.get(place.attention_key, {layer: ()}))
    query = kept.heads.get(place.attention_key, {}).get(layer)
    neurons = kept.neurons.get(place.stack, {}).get(place.layer)
    experts = kept.experts.get(place.stack, {}).get(place.layer)
    axes = anatomy.axes[name]
    if axes is None:
        if prod(shape) > 1 and _may_need_cut(place, query, neurons or experts):
            raise PlanError(
                f"{name}, shape {shape}: the table does not say along which axes it runs, so its layer cannot be sliced",
                hint="quantised weights cannot be sliced; for a new layout add a line to langslice/model/families.py",
            )
        return {}
    found: dict[int, Indices] = {}
    for dim, axis in enumerate(axes):
        if axis in HEAD_AXES and query is not None:
            heads = anatomy.heads[place.attention_key][layer]
            key_value = kept.key_value.get(place.attention_key, {}).get(layer, tuple(range(heads.key_value)))
            found[dim] = along_heads(axis, heads, anatomy.body.fused, query, key_value, length=shape[dim])
        elif axis in NEURON_AXES and neurons is not None:
            stay = np.asarray(neurons, dtype=np.int64)
            found[dim] = stay if axis == "neurons" else _gate_up(stay, shape[dim] // 2, anatomy.body.strided)
        elif axis == "experts" and experts is not None:
            found[dim] = np.asarray(experts, dtype=np.int64)
        elif axis == "experts_and_more" and experts is not None:
            rest = range(anatomy.experts[place.stack][place.layer], shape[dim])
            found[dim] = np.asarray((*experts, *rest), dtype=np.int64)
    return found


def _gate_up(stay: Indices, width: int, strided: bool) -> Indices:
    """Rows of neurons in a fused gate and up projection: one half after the other, or alternating."""
    return np.stack([2 * stay, 2 * stay + 1], axis=1).ravel() if strided else np.concatenate([stay, stay + width])


def _may_need_cut(place: TensorLocation, query: Sequence[int] | None, feed_forward: Sequence[int] | None) -> bool:
    """Whether a tensor without axes is in a part that loses something; masks and buffers without a size do not."""
    buffers = ("bias", "masked_bias", "inv_freq")
    if place.rest.rpartition(".")[2] in buffers and place.rest.count(".") == 1:
        return False
    in_attention = "att" in place.rest.lower()
    return (query is not None and in_attention) or (feed_forward is not None and not in_attention)


def along_heads(
    axis: str, heads: Heads, order: str, query: Sequence[int], key_value: Sequence[int], length: int = 0
) -> Indices:
    """Indices along an axis of heads that belong to some query heads and key-value heads.

    order   inside "qkv", see `_fused`
    length  of the axis, where queries or keys may be wider than what heads put out
    Returns  (n,) int64
    """
    if axis == "num_heads":
        return np.asarray(query, dtype=np.int64)
    if axis == "num_kv_heads":
        return np.asarray(key_value, dtype=np.int64)
    if axis == "heads":
        return _expand(query, length // heads.query or heads.size)
    if axis == "kv_heads":
        return _expand(key_value, length // heads.key_value or heads.size)
    if axis == "kv":
        return _expand([*key_value, *(heads.key_value + number for number in key_value)], heads.size)
    return _fused(order, heads, query, key_value)


def _fused(order: str, heads: Heads, query: Sequence[int], key_value: Sequence[int]) -> Indices:
    """Rows of a fused query-key-value projection.

    "parts"   all queries, all keys, all values          "heads"  query, key and value of one head after the other
    "groups"  the queries of a group, its key, its value; a group that is named several times shares its queries out
    """
    if order == "parts":
        keys = [heads.query + number for number in key_value]
        values = [heads.query + heads.key_value + number for number in key_value]
        return _expand([*query, *keys, *values], heads.size)
    if order == "heads":
        return _expand([3 * head + part for head in query for part in range(3)], heads.size)
    stride = heads.group + 2
    left = {group: [head % heads.group for head in query if head // heads.group == group] for group in key_value}
    shares = {group: len(own) // key_value.count(group) for group, own in left.items()}
    rows: list[int] = []
    for group in key_value:
        own, left[group] = left[group][: shares[group]], left[group][shares[group] :]
        rows += [group * stride + place for place in (*own, heads.group, heads.group + 1)]
    return _expand(rows, heads.size)


def _expand(units: Sequence[int], size: int) -> Indices:
    """Indices of units of `size` neighbours each."""
    return (np.asarray(units, dtype=np.int64)[:, None] * size + np.arange(size)).ravel()
