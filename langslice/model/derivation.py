"""A row of the table of families, read off the class of a model type that has none.

The class is built on the meta device, and again with a vocabulary that is larger by a number that no other size has. Tensors in
which exactly one dimension grew by exactly that run along the vocabulary there; all others do not, whatever their length.
Layers (derived_layers.py), heads and neurons (derived_parts.py), experts (derived_experts.py) are found the same way. What is
ambiguous refuses by name. A derived row is only a proposal: outputs compared with the source decide (verification/derived.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from langslice.model.axes import Family, LiveRows
from langslice.model.body import Body, StackFields
from langslice.model.class_shapes import ClassShapes, Path, Shapes, UnreadableClassError, full_document, read_class
from langslice.model.derived_experts import Experts, find_experts
from langslice.model.derived_layers import LAYER_COUNTS, Class, Stack, find_stacks
from langslice.model.derived_parts import Attention, Axes, Widths, find_heads, find_widths
from langslice.model.derived_rules import rules_for
from langslice.model.token_id_fields import find_sizes

# Rows by which the vocabulary grows; no size of a model is a multiple of both.
_STEPS = (41, 128)
_PER_LAYER = "vocab_size_per_layer_input"
# What a configuration says of the file that it came from, and not of the model.
_PASSING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "auto_map", "_attn_implementation")
_FUSED_BY_HEAD = "query_key_value"


@dataclass(frozen=True)
class Row:
    """What a class says of itself.

    family   axes of its tensors
    body     fields of its layers, None where no list of layers was found
    why      why it was not, "" where it was
    inside   tensors of its layers -> shape
    """

    family: Family
    body: Body | None
    why: str = ""
    inside: Shapes = field(default_factory=dict)


def derive_row(config: Mapping[str, Any]) -> Row:
    """The row of a model type, from its class and one configuration.

    config   config.json, or a configuration's `to_dict`; `architectures` names the class
    Raises   UnreadableClassError with what stays ambiguous
    """
    full = full_document(config)
    plain = {name: value for name, value in full.items() if name not in _PASSING}
    return _derived(json.dumps(plain, sort_keys=True, default=str))


@lru_cache(maxsize=32)
def _derived(text: str) -> Row:
    config: dict[str, Any] = json.loads(text)
    model_type = str(config.get("model_type"))
    read = read_class(config)
    vocabulary, section = vocabulary_axes(config, read)
    of = Class(config, section, read)
    try:
        stacks = find_stacks(of)
    except UnreadableClassError as error:
        return Row(_family(model_type, read, vocabulary, {}, ()), None, str(error))
    widths = {stack.name: find_widths(of, stack, stacks) for stack in stacks}
    attentions = {stack.name: find_heads(of, stack, stacks) for stack in stacks}
    experts = find_experts(of, stacks)
    parts = [*(one.axes for one in widths.values()), *(one.axes for one in attentions.values())]
    try:
        family = _family(model_type, read, vocabulary, _union([*parts, experts.axes]), stacks)
    except UnreadableClassError as error:  # vocabulary, heads and neurons do not depend on experts
        experts = Experts(refused=str(error))
        family = _family(model_type, read, vocabulary, _union(parts), stacks)
    body = _body(of, stacks, widths, attentions, experts)
    shapes = {**read.stored, **read.on_disk}
    inside = {name: shapes[name] for stack in stacks for name, _, _ in stack.tensors(shapes)}
    return Row(family, body, inside=inside)


def _family(model_type: str, read: ClassShapes, vocabulary: Axes, parts: Axes, stacks: tuple[Stack, ...]) -> Family:
    live = None if read.text_only else LiveRows("what the model reads next to text")
    rows = read.stored[read.tables[0]][0]
    shapes = {**read.stored, **read.on_disk}
    inside = frozenset(name for stack in stacks for name, _, _ in stack.tensors(shapes)) if parts else frozenset()
    family = Family((model_type,), (), live, read.offset)
    return replace(family, rules=rules_for(family, shapes, _union([vocabulary, parts]), inside, rows))


def _body(
    of: Class,
    stacks: tuple[Stack, ...],
    widths: Mapping[str, Widths],
    attentions: Mapping[str, Attention],
    experts: Experts,
) -> Body:
    first = attentions[stacks[0].name]
    fields = {
        stack.name: StackFields(
            stack.field, attentions[stack.name].query, widths[stack.name].dense, attentions[stack.name].key_value,
            widths[stack.name].experts, experts.routing,
        )
        for stack in stacks
    }  # fmt: skip
    refused = {
        kind: next((part.refused for part in found.values() if part.refused), "")
        for kind, found in (
            ("layers", {stack.name: stack for stack in stacks}),
            ("heads", attentions),
            ("neurons", widths),
            ("experts", {"": experts}),
        )
    }
    named = {*of.read.stored, *of.read.on_disk}
    return Body(
        (str(of.config.get("model_type")),),
        fields,
        section=of.section,
        head_size=first.size,
        fused=_order(of, first) if any(one.fused for one in attentions.values()) else "",
        key_values=first.key_values,
        lists=tuple(dict.fromkeys(name for stack in stacks for name in stack.lists)),
        first_bias=any(_only_in_first(stack, of, "relative_attention_bias") for stack in stacks),
        norm_all=any(one.norm_all for one in attentions.values()),
        head_counts=first.counts,
        head_widths=first.widths,
        renamed=named != set(of.read.stored),
        strided=any(one.strided for one in widths.values()),
        places={stack.name: stack.place for stack in stacks},
        tables=dict(next((stack.tables for stack in stacks if stack.tables), ())),
        refused={kind: why for kind, why in refused.items() if why},
    )


def _order(of: Class, attention: Attention) -> str:
    """A guess at the order inside a fused projection, by its name; the proof decides."""
    if not any(_FUSED_BY_HEAD in name for name, dims in attention.axes.items() if "qkv" in dims.values()):
        return "parts"
    return "groups" if attention.key_value and of.fields[attention.key_value] != of.fields[attention.query] else "heads"


def _only_in_first(stack: Stack, of: Class, part: str) -> bool:
    return {layer for _, layer, rest in stack.tensors(of.read.stored) if part in rest} == {0}


def vocabulary_axes(config: Mapping[str, Any], before: ClassShapes) -> tuple[Axes, str]:
    """Tensor -> the dimension that runs along a vocabulary, and its axis; names of memory and disk alike.

    Returns  the axes, and the part of the configuration that sizes the vocabulary, "" for the top
    Raises   UnreadableClassError where anything else changes, or nothing does
    """
    if not before.tables:
        raise UnreadableClassError(f"{before.kind} has no input embedding")
    rows = before.stored[before.tables[0]][0]
    fields = [(path, path[-1]) for path, size, _ in find_sizes(config, rows=rows, per_layer_rows=rows)]
    own = [path for path, name in fields if name != _PER_LAYER and _at(config, path) == rows]
    found = _grown(config, before, own, "vocab")
    if not any(name in found for name in before.tables):
        raise UnreadableClassError(
            f"its input embedding has {rows} rows, and {_listing(own) or 'no field that is known'} does not set their number"
        )
    per_layer = [path for path, name in fields if name == _PER_LAYER]
    if per_layer:
        found |= _grown(config, before, per_layer, "per_layer_vocab")
    inner = [path for path in own if len(path) == 2]
    # The top says the size, too, in PaliGemma; where it also counts layers, its own are meant.
    outer = len(inner) < len(own) and any(LAYER_COUNTS.fullmatch(name) for name in config)
    return found, inner[0][0] if inner and not outer else ""


def _at(document: Any, path: Path) -> Any:
    for key in path:
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def _grown(config: Mapping[str, Any], before: ClassShapes, fields: list[Path], axis: str) -> Axes:
    """Tensors in which one dimension grows with fields, as much as these do."""
    for at, step in enumerate(_STEPS if fields else ()):
        try:
            after = read_class(config, {path: _at(config, path) + step for path in fields})
            return _compare(before, after, step, axis)
        except UnreadableClassError:
            if at == len(_STEPS) - 1:
                raise
    return {}


def _compare(before: ClassShapes, after: ClassShapes, step: int, axis: str) -> Axes:
    found: Axes = {}
    for old, new in ((before.stored, after.stored), (before.on_disk, after.on_disk)):
        if old.keys() != new.keys():
            name = sorted(old.keys() ^ new.keys())[0]
            raise UnreadableClassError(f"{name} comes or goes with the size of the vocabulary")
        for name, shape in old.items():
            dim = _grown_dimension(name, shape, new[name], step)
            if dim is not None:
                found[name] = {dim: axis}
    for name, shape in before.passing.items():
        if after.passing.get(name) != shape:
            raise UnreadableClassError(
                f"{name} changes with the vocabulary, and is in no checkpoint: it cannot be sliced"
            )
    return found


def _grown_dimension(name: str, old: tuple[int, ...], new: tuple[int, ...], step: int) -> int | None:
    """The one dimension that grew by the step; None where none changed."""
    if old == new:
        return None
    grown = [dim for dim, (one, other) in enumerate(zip(old, new, strict=False)) if one != other]
    if len(old) != len(new) or len(grown) != 1 or new[grown[0]] - old[grown[0]] != step:
        raise UnreadableClassError(f"{name} changes from {old} to {new} where the vocabulary grows by {step} rows")
    return grown[0]


def _union(parts: list[Axes]) -> Axes:
    union: Axes = {}
    for axes in parts:
        for name, dims in axes.items():
            union[name] = {**union.get(name, {}), **dims}
    return union


def _listing(paths: list[Path]) -> str:
    return ", ".join("`" + ".".join(path) + "`" for path in paths)
