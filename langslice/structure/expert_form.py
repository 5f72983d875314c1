"""Whether a slice with fewer experts can be written, and what it asks of config.json.

Unmodified code has one number of experts for all layers, and sends every token to as many of them; where experts stand in groups,
tokens are sent to groups first. Zeros cannot stand for an expert that is gone: the router would go on sending tokens to it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.model.body import COUNTS_OF_EXPERTS, Routing
from langslice.structure.kept import Kept

_AS_MANY = "drop as many experts of each layer: --experts-sparsity does"


def refuse_experts(anatomy: Anatomy, kept: Kept) -> None:
    """Refuse a slice with fewer experts that unmodified code cannot express.

    Raises   PlanError with the reason and the nearest slice that can be expressed
    """
    if kept.experts and kept.style == "masked":
        raise PlanError(
            "an expert cannot be masked by zeros: the router would go on sending tokens to it",
            hint="remove it: langslice slice --drop-experts",
        )
    for routing, left in _left(anatomy, kept).items():
        _one_number(routing, left)
        chosen = _number(anatomy, routing.chosen)
        count = len(next(iter(left.values())))
        if chosen is not None and count < chosen:
            raise PlanError(
                f"of the experts of a layer {count} would be left, and a token runs through {chosen} (`{routing.chosen}`)",
                hint=f"keep at least {chosen} of each layer",
            )
        _groups_left(anatomy, routing, left)


def expert_fields(anatomy: Anatomy, kept: Kept) -> dict[str, Any]:
    """Fields of config.json that change with the number of experts: under each name that has it there, and groups."""
    config: dict[str, Any] = {}
    for routing, left in _left(anatomy, kept).items():
        (stack, layer), stay = next(iter(left.items()))
        before, after = anatomy.experts[stack][layer], len(stay)
        names = [name for name in (routing.experts, *COUNTS_OF_EXPERTS) if anatomy.given.get(name) == before]
        config |= dict.fromkeys(names or [routing.experts], after)
        groups = _groups_left(anatomy, routing, left)
        if groups != (_number(anatomy, routing.groups) or 1):
            config[routing.groups] = groups
    return config


def _left(anatomy: Anatomy, kept: Kept) -> dict[Routing, dict[tuple[str, int], tuple[int, ...]]]:
    """For fields that change: stack and layer -> experts that stay there, of all layers for which these fields speak."""
    found: dict[Routing, dict[tuple[str, int], tuple[int, ...]]] = {}
    for stack, by_layer in anatomy.experts.items():
        routing = anatomy.fields(stack).routing
        for layer, count in by_layer.items():
            if routing is not None and kept.keeps_layer(stack, layer):
                stay = kept.experts.get(stack, {}).get(layer, tuple(range(count)))
                found.setdefault(routing, {})[stack, layer] = stay
    changed = {anatomy.fields(stack).routing for stack in kept.experts}
    return {routing: left for routing, left in found.items() if routing in changed}


def _one_number(routing: Routing, left: dict[tuple[str, int], tuple[int, ...]]) -> None:
    counts = {len(stay): place for place, stay in left.items()}
    if len(counts) > 1:
        few, many = min(counts), max(counts)
        raise PlanError(
            f"layers keep different numbers of experts ({few} in layer {counts[few][1]}, {many} in layer {counts[many][1]}), and "
            f"`{routing.experts}` holds one",
            hint=_AS_MANY,
        )


def _groups_left(anatomy: Anatomy, routing: Routing, left: dict[tuple[str, int], tuple[int, ...]]) -> int:
    """How many groups of experts stay, equal ones in every layer.

    Raises   PlanError where what stays is not the same number of each group, or too little to choose from
    """
    groups = _number(anatomy, routing.groups) or 1
    if groups == 1:
        return 1
    found: dict[int, int] = {}
    for (stack, layer), stay in left.items():
        size = anatomy.experts[stack][layer] // groups
        counts = Counter(expert // size for expert in stay)
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{group}: {counts[group]}" for group in range(groups))
            raise PlanError(
                f"`{routing.groups}` puts the experts of a layer into {groups} groups of {size}, which stay equal; of those of "
                f"layer {layer} would stay {shown}",
                hint="drop as many of each group, or whole groups: --experts-sparsity does the first",
            )
        found.setdefault(len(counts), layer)
    if len(found) > 1:
        raise PlanError(
            f"layers keep different numbers of groups of experts ({min(found)} to {max(found)}), and `{routing.groups}` holds one",
            hint=_AS_MANY,
        )
    (number,) = found
    top, chosen = _number(anatomy, routing.top_groups) or 1, _number(anatomy, routing.chosen) or 1
    in_each = len(next(iter(left.values()))) // number
    least = anatomy.expert_groups(next(iter(left))[0])[1]
    if number < top or in_each < least:
        raise PlanError(
            f"{number} groups would be left, with {in_each} of the experts each, and a token runs through {chosen} "
            f"(`{routing.chosen}`), chosen from {top} of the groups (`{routing.top_groups}`)",
            hint=f"keep {top} groups at least, and {least} experts of each",
        )
    return number


def _number(anatomy: Anatomy, field: str) -> int | None:
    value = anatomy.config.get(field) if field else None
    return value if type(value) is int and value > 0 else None
