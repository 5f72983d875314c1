"""Rules that say of every tensor of a class what was measured, with as few of them as the common ones leave to say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from langslice.errors import CheckpointError
from langslice.model.axes import VOCABULARY_AXES, Family, Rule, describe_tensor
from langslice.model.class_shapes import Shapes, UnreadableClassError

Dims = Mapping[int, str]
_PARTS = {
    "heads": "attention", "kv_heads": "attention", "qkv": "attention", "num_heads": "attention",
    "num_kv_heads": "attention", "neurons": "feed-forward", "gate_up": "feed-forward", "vocab": "vocabulary",
    "per_layer_vocab": "vocabulary", "experts": "feed-forward", "experts_and_more": "router",
}  # fmt: skip


def rules_for(
    family: Family, shapes: Shapes, axes: Mapping[str, Dims], inside: frozenset[str], rows: int
) -> tuple[Rule, ...]:
    """Rules of a row.

    axes     tensor -> dimension -> axis, as measured
    inside   tensors of layers whose heads and neurons were measured: of these all is said; of others the vocabulary alone
    rows     of the vocabulary
    Raises   UnreadableClassError for a tensor of which no rule can say what was measured
    """
    rules: list[Rule] = []
    # Twice: a rule may stand before that of another tensor of its module, of which it says nothing.
    for name in [*shapes, *shapes]:
        if not _is_said(family, rules, name, shapes, axes, inside, rows):
            rule = _rule(name, shapes, axes, inside)
            rules = [rule, *(one for one in rules if one != rule)]
    for name, shape in shapes.items():
        if not _is_said(family, rules, name, shapes, axes, inside, rows):
            raise UnreadableClassError(f"no rule can say of {name}, shape {shape}, along which axes it runs")
    return tuple(rules)


def _is_said(
    family: Family,
    rules: list[Rule],
    name: str,
    shapes: Shapes,
    axes: Mapping[str, Dims],
    inside: frozenset[str],
    rows: int,
) -> bool:
    row = Family(family.model_types, tuple(rules))
    try:
        said = describe_tensor(row, name, shapes[name], frozenset({rows})).axes
    except CheckpointError:
        return False
    if name in inside and said is None and shapes[name]:
        return False
    known = set(_PARTS) if name in inside else set(VOCABULARY_AXES)
    return {dim: axis for dim, axis in enumerate(said or ()) if axis in known} == axes.get(name, {})


def _rule(name: str, shapes: Shapes, axes: Mapping[str, Dims], inside: frozenset[str]) -> Rule:
    """A rule for one tensor, and all that are called and run alike."""
    module, _, leaf = name.rpartition(".")
    dims = len(shapes[name])
    linear = leaf == "weight" and dims == 2
    bias = leaf == "bias" and dims == 1
    alike = (axes.get(name, {}), dims)
    others = [other for other in shapes if (axes.get(other, {}), len(shapes[other])) != alike]
    if linear or bias:  # the layout says what the rule means for the other one of weight and bias
        others = [other.rpartition(".")[0] for other in others if other.rpartition(".")[2] == leaf]
    pattern = next(
        (
            end
            for end in _ends(module if linear or bias else name)
            if not any(re.fullmatch(rf"(?:.*\.)?(?:{end})", other) for other in others)
        ),
        None,
    )
    if pattern is None:
        raise UnreadableClassError(
            f"no rule can tell {name}, shape {shapes[name]}, from a tensor that runs along other axes"
        )
    if name not in axes and name not in inside:
        return Rule("other", pattern if not (linear or bias) else rf"{pattern}\.{leaf}", (), "opaque")
    measured = axes.get(name, {})
    said = tuple(measured.get(dim, "hidden") for dim in range(dims))
    part = next((_PARTS[axis] for axis in measured.values()), "other")
    return Rule(part, pattern, said, "linear" if linear else "bias" if bias else "raw")


def _ends(name: str) -> Iterator[str]:
    """Ends of a name, shortest first, with any number where it has one; then the name itself, and at last the name alone."""
    parts = [r"\d+" if step.isdigit() else re.escape(step) for step in name.split(".")]
    shortest = len(parts) - (2 if parts[-1] in ("weight", "bias") else 1)
    for start in range(max(shortest, 0), -1, -1):
        yield r"\.".join(parts[start:])
    yield re.escape(name)
    yield rf"(?<!.){re.escape(name)}"  # where the name is also the end of another
