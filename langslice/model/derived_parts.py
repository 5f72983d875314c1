"""Which fields set heads and neurons of a class, and along which dimensions they run: the class built again with more of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langslice.errors import CheckpointError
from langslice.model.axes import Family, Rule, describe_tensor
from langslice.model.body import is_of_experts
from langslice.model.class_shapes import Shapes
from langslice.model.derived_layers import Class, Stack

Axes = dict[str, dict[int, str]]
"""Tensor -> dimension -> axis."""
_WIDTHS = re.compile(r".*(?:intermediate|ffn|ff|inner|mlp|hidden_dim|feed_forward|ffw).*")
_QUERIES = re.compile(
    r"(?!.*(?:kv|key_value|linear|mamba|index|group|conv|ssm)).*(?:n_heads?|num_heads|attention_heads)"
)
_KEY_VALUES = re.compile(r"(?!.*(?:linear|index)).*(?:kv_heads|key_value_heads|kv_n_heads)")
_HEAD_SIZES = (
    "head_dim", "d_kv", "attention_head_dim", "kv_channels", "attention_head_size", "dim_head", "d_head", "v_head_dim",
)  # fmt: skip
_WIDTH_NAMES = ("all_head_size", "embed_dim", "inner_dim", "split_size", "dim", "d_model_size")
# Names of projections beside those of the common rules, where no shape tells what runs along heads.
_TIED_NAMES = (
    Rule("attention", r"attn\.c_attn", ("hidden", "qkv"), "conv1d"),
    Rule("attention", r"attn\.c_proj", ("heads", "hidden"), "conv1d"),
    Rule("attention", "W?q|wq", ("heads", "hidden")),
    Rule("attention", "W?[kv]|w[kv]", ("kv_heads", "hidden")),
    Rule("attention", r"multi_head_attention\.dense|self_attn\.output", ("hidden", "heads")),
)
# What a model says that has no such part, and is not refused anything.
NO_ATTENTION = "it has no attention heads"
NO_FEED_FORWARD = "it has no feed-forward part"
_STEP = 16  # neurons more; experts are multiplied in groups of 8


@dataclass(frozen=True)
class Widths:
    """Feed-forward widths of one stack.

    dense, experts   fields, "" for none
    axes             what runs along them
    strided          gate and up projection alternate where they are fused
    refused          why no neuron can be removed, "" where they can
    """

    dense: str = ""
    experts: str = ""
    axes: Axes = field(default_factory=dict)
    strided: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Attention:
    """Heads of one stack.

    query, key_value  fields that count them, "" for none
    size              field with the size of a head, "" where none sets it
    key_values        as `Body.key_values`
    counts, widths    attributes of its module that hold the number of heads, and that times their size
    fused             whether queries, keys and values stand in one tensor
    norm_all          a vector spans all heads
    axes              what runs along them
    refused           why no head can be cut, "" where they can
    """

    query: str = ""
    key_value: str = ""
    size: str = ""
    key_values: str = "field"
    fused: bool = False
    norm_all: bool = False
    counts: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    axes: Axes = field(default_factory=dict)
    refused: str = ""


def growth(of: Class, changes: Mapping[str, Any]) -> dict[str, dict[int, int]] | None:
    """Tensor -> dimension -> by how much it grows; None where the class cannot be built so, or has other tensors then."""
    after = of.again(changes)
    if after is None:
        return None
    found: dict[str, dict[int, int]] = {}
    for old, new in ((of.read.stored, after.stored), (of.read.on_disk, after.on_disk)):
        if old.keys() != new.keys():
            return None
        for name, shape in old.items():
            if len(shape) != len(new[name]):
                return None
            dims = {dim: b - a for dim, (a, b) in enumerate(zip(shape, new[name], strict=True)) if a != b}
            if dims:
                found[name] = dims
    return found


def _shapes(of: Class) -> Shapes:
    return {**of.read.stored, **of.read.on_disk}


# ---- neurons -------------------------------------------------------------------------------------------------------


def find_widths(of: Class, stack: Stack, stacks: Sequence[Stack]) -> Widths:
    """The fields of a stack's feed-forward widths, and the dimensions that run along them."""
    if _is_state_space(of, stack):
        return Widths(refused=NO_FEED_FORWARD)
    inside = {name: rest for one in stacks for name, _, rest in one.tensors(_shapes(of))}
    own = {name for name, _, _ in stack.tensors(_shapes(of))}
    dense = experts = ""
    axes: Axes = {}
    for name, width in _width_fields(of, stack):
        value = [one + _STEP for one in width] if isinstance(width, list) else width + _STEP
        grown = growth(of, {name: value})
        one = width[0] if isinstance(width, list) else width
        measured = None if not grown else _neuron_axes(of, grown, inside, one)
        if not measured or own.isdisjoint(measured):
            continue
        of_experts = [tensor for tensor in measured if is_of_experts(inside[tensor], _shapes(of)[tensor])]
        if of_experts and not experts:
            experts = name
            dense = dense if len(of_experts) == len(measured) else name
        elif not of_experts and not dense and not all("shared" in inside[tensor] for tensor in measured):
            dense = name
        else:
            continue
        axes |= measured
    if not axes:
        return Widths(refused="no field of its configuration sets the width of the feed-forward part alone")
    if experts not in ("", dense) and _are_beside_others(of, stack, axes):
        return Widths(refused="its layers have neurons of their own beside those of experts, in another number")
    strided = any("gate_up" in dims.values() and name in of.read.strided for name, dims in axes.items())
    return Widths(dense, experts, axes, strided)


def _are_beside_others(of: Class, stack: Stack, axes: Axes) -> bool:
    """Whether a layer has neurons of experts and others (Gemma 4); shared experts are not among the others."""
    layers: dict[bool, set[int]] = {True: set(), False: set()}
    for name, layer, rest in stack.tensors(_shapes(of)):
        if name in axes and "shared_expert" not in rest:
            layers[is_of_experts(rest, _shapes(of)[name])].add(layer)
    return not layers[True].isdisjoint(layers[False])


def _is_state_space(of: Class, stack: Stack) -> bool:
    """Whether every one of its layers is norms and a state-space mixer, and nothing else."""
    parts: dict[int, set[str]] = {}
    mixers: dict[int, set[str]] = {}
    for _, layer, rest in stack.tensors(of.read.stored):
        parts.setdefault(layer, set()).add(rest.partition(".")[0])
        if rest.endswith(".A_log"):
            mixers.setdefault(layer, set()).add(rest.partition(".")[0])
    return all(
        layer in mixers and all(part in mixers[layer] or "norm" in part for part in found)
        for layer, found in parts.items()
    )


def _width_fields(of: Class, stack: Stack) -> Iterator[tuple[str, Any]]:
    """Fields that may set a width, with it; those of the stack's own side first."""
    other = {"encoder": "decoder", "decoder": "encoder"}.get(stack.name, "\0")
    hidden = next((of.fields[name] for name in ("hidden_size", "n_embd", "d_model") if of.fields.get(name)), 0)
    for name, value in of.fields.items():
        if not _WIDTHS.fullmatch(name) or other in name:
            continue
        if value is None:
            yield name, 4 * hidden
        elif _is_width(value):
            yield name, value


def _is_width(value: Any) -> bool:
    """A number, or the same one for each layer."""
    if isinstance(value, list):
        return len(set(map(str, value))) == 1 and _is_width(value[0])
    return type(value) is int and value > 1


def _neuron_axes(
    of: Class, grown: Mapping[str, Mapping[int, int]], inside: Mapping[str, str], width: int
) -> Axes | None:
    """Axes of what grew with a width; None where anything else grew, or by another amount."""
    shapes, axes = _shapes(of), {}
    for name, dims in grown.items():
        if name not in inside or len(dims) != 1:
            return None
        ((dim, by),) = dims.items()
        if (by, shapes[name][dim]) == (_STEP, width):
            axes[name] = {dim: "neurons"}
        elif (by, shapes[name][dim]) == (2 * _STEP, 2 * width) and "shared" not in name:
            axes[name] = {dim: "gate_up"}
        else:
            return None
    return axes


# ---- heads ---------------------------------------------------------------------------------------------------------


def find_heads(of: Class, stack: Stack, stacks: Sequence[Stack]) -> Attention:
    """The fields of a stack's heads, and the dimensions that run along them."""
    inside = {name for one in stacks for name, _, _ in one.tensors(_shapes(of))}
    own = {name for name, _, _ in stack.tensors(_shapes(of))}
    other = {"encoder": "decoder", "decoder": "encoder"}.get(stack.name, "\0")
    names = [name for name, value in of.fields.items() if type(value) is int and value > 0 and other not in name]
    queries = sorted((name for name in names if _QUERIES.fullmatch(name)), key=lambda name: stack.name not in name)
    keys = [name for name in names if _KEY_VALUES.fullmatch(name)]
    if not queries or _is_state_space(of, stack):
        return Attention(refused=NO_ATTENTION)
    for query in queries:
        for key_value in (*keys, ""):
            for size in ("", *_HEAD_SIZES):
                found = _attention(of, inside, query, key_value, size)
                if found is not None and not own.isdisjoint(found.axes):
                    return found
    for query in queries:
        for key_value in keys or ("",):
            found = _tied(of, inside, query, key_value)
            if found is not None and not own.isdisjoint(found.axes):
                return found
    if queries and growth(of, {queries[0]: 2 * of.fields[queries[0]]}) == {}:
        return Attention(refused="unmodified code ties the size of a head to the number of heads")
    return Attention(refused="no field of its configuration sets the number of heads alone")


def _attention(of: Class, inside: set[str], query: str, key_value: str, size: str) -> Attention | None:
    """What these fields mean; None where they do not explain all that grows with the number of heads."""
    heads = of.fields[query]
    pairs = of.fields[key_value] if key_value else heads
    if size in _HEAD_SIZES and size not in of.fields and size != "head_dim":
        return None
    given = of.fields.get(size) if size else None
    fixed = {size: given or _hidden(of) // heads} if size and size != "v_head_dim" else {}
    if fixed and growth(of, fixed) != {}:
        return None
    grouped = bool(key_value) and pairs < heads
    both = growth(of, {**fixed, query: 2 * heads, **({key_value: 2 * pairs} if key_value else {})})
    alone = growth(of, {**fixed, query: 2 * heads}) if grouped else both
    if not both or not alone or any(name not in inside for name in (*both, *alone)):
        return None
    axes = _head_axes(_shapes(of), both, alone, heads, pairs, grouped=grouped)
    if axes is None or not _has_output(axes):
        return None
    spans = any(
        len(_shapes(of)[name]) == 1 and "norm" in name and set(dims.values()) & {"heads", "kv_heads"}
        for name, dims in axes.items()
    )
    own = "field" if key_value else "own"
    fused = any("qkv" in dims.values() for dims in axes.values())
    written = size or next((name for name in _HEAD_SIZES if of.fields.get(name)), "")
    return Attention(query, key_value, written, own, fused, spans, axes=axes) if written else None


def _tied(of: Class, inside: set[str], query: str, key_value: str) -> Attention | None:
    """Heads whose size is the hidden size divided by their number, so that no shape tells them: the names of tensors do.

    Such heads are removed with per-layer sizes, and their module is told how many stay.
    """
    heads, hidden = of.fields[query], _hidden(of)
    pairs = of.fields[key_value] if key_value else heads
    after = of.again({query: 2 * heads})
    if after is None:
        return None
    counted = _counted(of.read.stored, after.stored, heads, {hidden // heads, pairs * hidden // heads})
    if counted is None or not counted.keys() <= inside:
        return None
    lengths = {"heads": hidden, "kv_heads": pairs * hidden // heads, "qkv": hidden + 2 * pairs * hidden // heads}
    family = Family((of.read.kind,), _TIED_NAMES)
    axes: Axes = {}
    for name in inside:
        shape = _shapes(of)[name]
        try:
            said = describe_tensor(family, name, shape, frozenset()).axes or ()
        except CheckpointError:
            continue
        dims = {dim: axis for dim, axis in enumerate(said) if axis in lengths and shape[dim] == lengths[axis]}
        dims |= counted.get(name, {})
        if dims:
            axes[name] = dims
    if not _has_output(axes):
        return None
    counts, widths = set(), set()
    for path, numbers in of.read.numbers.items():
        changed = {
            one for one, value in numbers.items() if value == heads and after.numbers[path].get(one) == 2 * heads
        }
        counts |= changed
        widths |= {one for one, value in numbers.items() if changed and value == hidden and one in _WIDTH_NAMES}
    fused = any("qkv" in dims.values() for dims in axes.values())
    own = "field" if key_value else "own"
    return Attention(
        query, key_value, "", own, fused, counts=tuple(sorted(counts)), widths=tuple(sorted(widths)), axes=axes
    )


def _counted(old: Shapes, new: Shapes, heads: int, sizes: set[int]) -> Axes | None:
    """Dimensions that run along heads one by one, where heads are doubled and what is of their size becomes half as long.

    Returns  None where anything else changes
    """
    axes: Axes = {}
    if old.keys() != new.keys():
        return None
    for name, shape in old.items():
        if len(shape) != len(new[name]):
            return None
        for dim, (a, b) in enumerate(zip(shape, new[name], strict=True)):
            if (a, b) == (heads, 2 * heads):
                axes.setdefault(name, {})[dim] = "num_heads"
            elif a != b and not (a in sizes and a == 2 * b):
                return None
    return axes


def _has_output(axes: Axes) -> bool:
    """Whether some matrix reads what heads put out: stored as (out, in), or the other way round beside fused queries."""
    turned = any(dims.get(1) == "qkv" for dims in axes.values())
    return any(dims.get(0 if turned else 1) == "heads" for dims in axes.values())


def _head_axes(
    shapes: Shapes,
    both: Mapping[str, Mapping[int, int]],
    alone: Mapping[str, Mapping[int, int]],
    heads: int,
    pairs: int,
    *,
    grouped: bool,
) -> Axes | None:
    """Axes of what grows with heads.

    both   queries and key-value heads doubled         alone  queries alone, where they are more
    """
    axes: Axes = {}
    for name, dims in both.items():
        for dim, by in dims.items():
            length, own = shapes[name][dim], alone.get(name, {}).get(dim, 0)
            if by != length:
                return None
            if not grouped:
                axis = _ungrouped(name, length, heads)
            elif own == length:
                axis = "num_heads" if length == heads else "heads"
            elif own == 0:
                axis = "num_kv_heads" if length == pairs else "kv_heads"
            elif own * (heads + 2 * pairs) == length * heads:
                axis = "qkv"
            else:
                return None
            axes.setdefault(name, {})[dim] = axis
    return axes if all(name in both for name in alone) else None


def _ungrouped(name: str, length: int, heads: int) -> str:
    """Without groups queries, keys and values grow alike: a fused projection is told by its name, and by the proof."""
    if length == heads:
        return "num_heads"
    parts = re.split(r"[._]", name)
    if re.search(r"qkv|query_key_value|c_attn|Wqkv|in_proj", name) and length % 3 == 0:
        return "qkv"
    return "kv_heads" if {"k", "v", "key", "value"} & set(parts) else "heads"


def _hidden(of: Class) -> int:
    return next(
        (
            int(of.fields[name])
            for name in ("hidden_size", "n_embd", "d_model", "dim", "emb_dim")
            if of.fields.get(name)
        ),
        0,
    )
