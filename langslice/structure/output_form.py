"""In which form a structural slice can be written, and what it asks of config.json.

Stock code has one number of heads and one width for all layers of a stack, and some families tie the number of heads to the
hidden size. What it cannot express is written with per-layer sizes, or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy, Heads
from langslice.structure.expert_form import expert_fields, refuse_experts
from langslice.structure.hidden_size import hidden_fields, refuse_beside_hidden, refuse_hidden
from langslice.structure.kept import Kept
from langslice.structure.layer_fields import layer_fields
from langslice.structure.options import STYLE_NAMES

# Rows of a grouped matrix product must be a multiple of 16 bytes: eight elements of two bytes.
EXPERT_MULTIPLE = 8


def express(
    anatomy: Anatomy,
    *,
    layers: Mapping[str, tuple[int, ...]],
    heads: Mapping[str, Mapping[int, Iterable[int]]],
    neurons: Mapping[str, Mapping[int, Iterable[int]]],
    experts: Mapping[str, Mapping[int, Iterable[int]]] = MappingProxyType({}),
    hidden: tuple[int, ...] = (),
    style: str = "auto",
    replicate: bool = False,
) -> Kept:
    """Turn what is dropped into what is kept, in a form that can be written.

    layers          stack -> layers that stay
    heads, neurons  place -> old layer -> heads or neurons that go
    experts         stack -> old layer -> experts that go
    hidden          ascending dimensions of the hidden states that stay; () for all
    style           "auto" takes stock where unmodified code can express the slice, else sliced
    replicate       give every query head a key-value head of its own where groups become uneven
    Raises          PlanError with the reason and the nearest slice that can be expressed
    """
    if style not in STYLE_NAMES:
        raise PlanError(f"--output-style {style}: not one of {', '.join(STYLE_NAMES)}")
    kept = Kept(
        "masked" if style == "masked" else "stock",
        dict(layers),
        _complements(anatomy, layers, heads, "head", lambda place, layer: anatomy.heads[place][layer].query),
        {},
        _complements(anatomy, layers, neurons, "neuron", lambda place, layer: anatomy.neurons[place][layer]),
        _complements(anatomy, layers, experts, "expert", lambda place, layer: anatomy.experts[place][layer]),
        hidden=hidden,
    )
    refuse_experts(anatomy, kept)
    refuse_hidden(anatomy, kept)
    if style == "masked":
        if layers:
            raise PlanError(
                "a layer cannot be masked by zeros: its norms would go on changing what passes",
                hint="remove it: langslice slice --drop-layers",
            )
        return replace(kept, key_value=_key_value_masked(anatomy, kept))
    kept = replace(kept, key_value=key_value_heads(anatomy, kept, replicate))
    refuse_common_norm(anatomy, kept)
    reason = not_stock(anatomy, kept)
    if not reason:
        kept = replace(kept, config=_config(anatomy, kept, sizes=True))
        reason = _refused_by_class(anatomy, kept)
        if not reason:
            return kept
    refuse_beside_hidden(anatomy, kept, reason)
    refuse_sizes_by_layer(anatomy, kept, style, reason)
    return replace(kept, style="sliced", config=_config(anatomy, kept, sizes=False))


def refuse_common_norm(anatomy: Anatomy, kept: Kept) -> None:
    """Refuse to remove heads whose queries and keys one norm divides together."""
    if kept.heads and anatomy.body.norm_all:
        raise PlanError(
            "no head of this model can be removed: a norm spans the queries and keys of all heads together",
            hint="--output-style masked writes zeros instead; layers and neurons can be removed",
        )


def refuse_sizes_by_layer(anatomy: Anatomy, kept: Kept, style: str, reason: str) -> None:
    """Refuse a slice that asks for per-layer sizes where they are not wanted, or cannot be written.

    reason  why unmodified code cannot express it
    """
    if style == "stock":
        raise PlanError(
            f"unmodified code cannot express this slice: {reason}",
            hint="--output-style sliced writes per-layer sizes, masked writes zeros; --uniform slices all layers alike",
        )
    refused = _not_sliced(anatomy, kept)
    if refused:
        raise PlanError(
            f"this slice cannot be written\n  unmodified code cannot express it: {reason}\n  with per-layer sizes: {refused}",
            hint="--uniform slices all layers alike; --output-style masked writes zeros instead",
        )


def queries(anatomy: Anatomy, kept: Kept, place: str, layer: int) -> tuple[int, ...]:
    """Query heads that stay in an attention."""
    return kept.heads.get(place, {}).get(layer, tuple(range(anatomy.heads[place][layer].query)))


def key_values(anatomy: Anatomy, kept: Kept, place: str, layer: int) -> tuple[int, ...]:
    """Old key-value head of each new one."""
    return kept.key_value.get(place, {}).get(layer, tuple(range(anatomy.heads[place][layer].key_value)))


def _complements(
    anatomy: Anatomy,
    layers: Mapping[str, tuple[int, ...]],
    dropped: Mapping[str, Mapping[int, Iterable[int]]],
    unit: str,
    size_of: Callable[[str, int], int],
) -> dict[str, dict[int, tuple[int, ...]]]:
    """What stays in each layer that stays and loses something."""
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for place, by_layer in dropped.items():
        stack = place.split(".")[0]
        for layer, numbers in sorted(by_layer.items()):
            gone = set(numbers)
            if not gone or layer not in layers.get(stack, (layer,)):
                continue
            stay = tuple(number for number in range(size_of(place, layer)) if number not in gone)
            if not stay:
                raise PlanError(
                    f"no {unit} of {place} layer {layer} would be left",
                    hint=f"keep at least one {unit} of each layer, or drop the layer",
                )
            kept.setdefault(place, {})[layer] = stay
    return kept


def _key_value_masked(anatomy: Anatomy, kept: Kept) -> dict[str, dict[int, tuple[int, ...]]]:
    """Key-value heads that some query head which stays still reads."""
    return {
        place: {
            layer: tuple(sorted({head // anatomy.heads[place][layer].group for head in stay}))
            for layer, stay in rows.items()
        }
        for place, rows in kept.heads.items()
    }


def key_value_heads(anatomy: Anatomy, kept: Kept, replicate: bool) -> dict[str, dict[int, tuple[int, ...]]]:
    """Key-value heads of every layer whose heads are pruned; of all layers of the attention when they are replicated.

    A single key-value head serves any number of query heads, so that it never has to be replicated.
    """
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for place in kept.heads:
        for layer, heads in anatomy.heads[place].items():
            if not kept.keeps_layer(place.split(".")[0], layer):
                continue
            stay = queries(anatomy, kept, place, layer)
            groups = [head // heads.group for head in stay]
            counts = {groups.count(group) for group in groups}
            if replicate and heads.group > 1 and heads.key_value > 1:
                found.setdefault(place, {})[layer] = tuple(groups)
            elif layer in kept.heads[place]:
                if len(counts) > 1:
                    raise PlanError(_uneven(place, layer, heads, groups), hint=_EVEN_GROUPS)
                found.setdefault(place, {})[layer] = tuple(dict.fromkeys(groups))
    return found


_EVEN_GROUPS = (
    "drop whole groups, or equally many heads of each; --replicate-kv gives every query head its own key and value; "
    "--output-style masked writes zeros"
)


def _uneven(place: str, layer: int, heads: Heads, groups: list[int]) -> str:
    rows = ", ".join(f"{group}: {groups.count(group)}" for group in sorted(set(groups)))
    return (
        f"{heads.group} query heads of {place} layer {layer} share a key-value head, and they must go on sharing evenly; "
        f"what would stay of each group is {rows}"
    )


def not_stock(anatomy: Anatomy, kept: Kept) -> str:
    """Why unmodified code cannot express the sizes; "" where it can."""
    body = anatomy.body
    if kept.heads and body.slopes:
        return "positions enter by a slope for each head, which unmodified code derives from the number of heads"
    if kept.heads and not body.head_size and not kept.hidden:
        why = f" with `{body.tied_if}`" if body.tied_if else ""
        return f"unmodified code of `{body.model_types[0]}`{why} ties the size of a head to the number of heads"
    for fields, sizes in _head_sizes(anatomy, kept).items():
        if kept.heads and len(sizes) > 1:
            counts = sorted({query for query, _ in sizes})
            return f"layers keep different numbers of heads ({counts[0]} to {counts[-1]}), and `{fields}` holds one"
    if kept.heads and body.first_bias:
        for place in (place for place in kept.heads if place.endswith(".self")):
            stack = place.split(".")[0]
            rows = {
                queries(anatomy, kept, place, layer) for layer in anatomy.heads[place] if kept.keeps_layer(stack, layer)
            }
            if len(rows) > 1:
                return f"block 0 holds the position bias of all blocks, so that {place} needs the same heads in every layer"
    for fields, widths in _widths(anatomy, kept).items():
        if kept.neurons and not fields:
            return f"unmodified code of `{body.model_types[0]}` ties the feed-forward width to the hidden size"
        if kept.neurons and len(widths) > 1:
            return f"layers keep {min(widths):,} to {max(widths):,} neurons, and `{fields}` holds one number"
    if kept.neurons and any(anatomy.expert_layers.values()):
        width = next(iter(_widths(anatomy, kept)[_experts_field(anatomy)]))
        if width % EXPERT_MULTIPLE:
            return f"experts are multiplied in groups, and {width} neurons are no multiple of {EXPERT_MULTIPLE}"
    return ""


def _head_sizes(anatomy: Anatomy, kept: Kept) -> dict[str, set[tuple[int, int]]]:
    """Configuration field -> numbers of query and key-value heads of the layers that it speaks for."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    for place, by_layer in anatomy.heads.items():
        stack = place.split(".")[0]
        for layer in by_layer:
            if kept.keeps_layer(stack, layer):
                pair = len(queries(anatomy, kept, place, layer)), len(key_values(anatomy, kept, place, layer))
                sizes.setdefault(anatomy.fields(stack).heads, set()).add(pair)
    return sizes


def _widths(anatomy: Anatomy, kept: Kept) -> dict[str, set[int]]:
    """Configuration field -> feed-forward widths of the layers that it speaks for."""
    widths: dict[str, set[int]] = {}
    for stack, by_layer in anatomy.neurons.items():
        fields = anatomy.fields(stack)
        for layer, width in by_layer.items():
            if kept.keeps_layer(stack, layer):
                name = fields.experts if layer in anatomy.expert_layers[stack] else fields.neurons
                stay = kept.neurons.get(stack, {}).get(layer)
                widths.setdefault(name, set()).add(width if stay is None else len(stay))
    return widths


def _experts_field(anatomy: Anatomy) -> str:
    return next(fields.experts for fields in anatomy.body.stacks.values() if fields.experts)


def _not_sliced(anatomy: Anatomy, kept: Kept) -> str:
    """Why per-layer sizes cannot express a slice; "" where they can."""
    body = anatomy.body
    if body.section:
        return "the text model is inside a wrapper with other towers"
    if body.renamed:
        return "unmodified code gives the tensors of this family other names as it loads them"
    if kept.heads and body.even_heads:
        return body.even_heads
    if kept.heads and anatomy.config.get("alibi"):
        return "positions enter by a slope for each head"
    if kept.neurons and any(anatomy.expert_layers.values()):
        return "transformers keeps the experts of a layer in one tensor"
    return ""


def _config(anatomy: Anatomy, kept: Kept, *, sizes: bool) -> dict[str, Any]:
    """Fields of config.json that change, by dotted name; with `sizes` also the numbers of heads and neurons."""
    config = layer_fields(anatomy, kept.layers)
    if sizes and kept.heads:
        for place in kept.heads:
            fields = anatomy.fields(place.split(".")[0])
            query, key_value = next(iter(_head_sizes(anatomy, kept)[fields.heads]))
            config[fields.heads] = query
            if anatomy.body.head_size:
                config[anatomy.body.head_size] = next(iter(anatomy.heads[place].values())).size
            if fields.kv_heads:
                config[fields.kv_heads] = key_value
    if sizes and kept.neurons:
        config.update({name: next(iter(found)) for name, found in _widths(anatomy, kept).items()})
    config.update(expert_fields(anatomy, kept) | hidden_fields(anatomy, kept))
    for alias, name in _aliases(anatomy).items():
        if name in config:
            config[alias] = len(config[name]) if isinstance(config[name], list) else config[name]
    prefix = f"{anatomy.body.section}." if anatomy.body.section else ""
    return {prefix + name: value for name, value in config.items()}


def _aliases(anatomy: Anatomy) -> dict[str, str]:
    """Second names under which config.json itself gives one of the fields."""
    aliases: dict[str, str] = {}
    for fields in anatomy.body.stacks.values():
        for alias, name in (("num_hidden_layers", fields.layers), ("num_attention_heads", fields.heads)):
            if alias != name and alias in anatomy.given:
                aliases.setdefault(alias, name)
    return aliases


def _refused_by_class(anatomy: Anatomy, kept: Kept) -> str:
    """What the unmodified configuration class says against the new sizes; "" when it takes them.

    Fewer layers and neurons are always taken; a number of heads may have to divide the hidden size, and only where it does
    not is the class asked, which takes seconds for its imports.
    """
    hidden = len(kept.hidden) or anatomy.config.get("hidden_size") or 0
    counts = {query for sizes in _head_sizes(anatomy, kept).values() for query, _ in sizes}
    if not (kept.heads or kept.hidden) or all(hidden % count == 0 for count in counts):
        return ""
    from langslice.model.transformers_classes import config_error

    changed = {name.removeprefix(f"{anatomy.body.section}."): value for name, value in kept.config.items()}
    return config_error({**anatomy.given, **changed})
