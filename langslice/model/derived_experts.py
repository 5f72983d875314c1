"""Which field counts the experts of a class, and along which dimensions they run: the class built again with twice as many.

On disk each expert may have tensors of its own, numbered; then as many names come as there are, like those of the first ones.
What else grows, such as the router, must double, or have as many rows more: behind those of its experts a router may have some for
shared experts, or for none, which stay. Which fields say how tokens are sent to them is told by their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from langslice.model.body import Routing, expert_number, with_expert
from langslice.model.class_shapes import Shapes
from langslice.model.derived_layers import Class, Stack
from langslice.model.derived_parts import Axes

_COUNTS = re.compile(
    r"(?!.*(?:shared|per_tok|zero|topk|top_k|group|layer|freq|size|dim|width|period|offset)).*experts?"
)
_ATTENTION = re.compile(r"att(?:n|ention)\.")
_CHOSEN = (
    "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts", "moe_k",
    "num_selected_experts",
)  # fmt: skip
_GROUPS = (("n_group", "topk_group"), ("num_expert_group", "topk_group"), ("n_groups", "topk_group"))


@dataclass(frozen=True)
class Experts:
    """Experts of a class.

    routing  fields, None without experts or where they were not found
    axes     what runs along them; tensors of single experts do not
    refused  why no expert can be removed, "" where some can or there are none
    """

    routing: Routing | None = None
    axes: Axes = field(default_factory=dict)
    refused: str = ""


def find_experts(of: Class, stacks: Sequence[Stack]) -> Experts:
    """The field that counts a class's experts, and the dimensions that run along them."""
    inside = {name for one in stacks for shapes in _kinds(of) for name, _, _ in one.tensors(shapes)}
    if not any("expert" in name for name in inside):
        return Experts()
    for name, value in of.fields.items():
        if type(value) is int and value > 1 and _COUNTS.fullmatch(name):
            axes = _axes(of, inside, name, value)
            if axes and any(_ATTENTION.search(one) for one in axes):
                why = f"`{name}` counts experts of its attention, too, which have a router of their own"
                return Experts(axes=axes, refused=why)
            if axes:
                return Experts(_routing(of, name), axes)
    return Experts(refused="no field of its configuration sets the number of experts alone")


def _kinds(of: Class) -> tuple[Shapes, Shapes]:
    return of.read.stored, of.read.on_disk


def _axes(of: Class, inside: set[str], name: str, count: int) -> Axes | None:
    """What grows with the field, by as much; None where anything else changes, or comes and is not the like of an expert."""
    after = of.again({name: 2 * count})
    if after is None:
        return None
    axes: Axes = {}
    for old, new in zip(_kinds(of), (after.stored, after.on_disk), strict=True):
        if old.keys() - new.keys() or any(not _is_like(one, old, new, count) for one in new.keys() - old.keys()):
            return None
        for one, shape in old.items():
            if shape == new[one]:
                continue
            grown = [dim for dim, (a, b) in enumerate(zip(shape, new[one], strict=False)) if a != b]
            if one not in inside or len(grown) != 1:
                return None
            before, now = shape[grown[0]], new[one][grown[0]]
            if now - before != count or before < count:
                return None
            axes[one] = {grown[0]: "experts" if before == count else "experts_and_more"}
    return axes


def _is_like(name: str, old: Shapes, new: Shapes, count: int) -> bool:
    """Whether a tensor that came is that of a new expert, and of the shape that the others have."""
    number = expert_number(name)
    if number is None or not count <= number < 2 * count:
        return False
    return old.get(with_expert(name, number - count)) == new[name]


def _routing(of: Class, name: str) -> Routing:
    chosen = next((one for one in _CHOSEN if type(of.fields.get(one)) is int), "")
    pairs = ((groups, top) for groups, top in _GROUPS if all(type(of.fields.get(one)) is int for one in (groups, top)))
    return Routing(name, chosen, *next(pairs, ("", "")))
