"""Whether what a plan keeps of layers, heads, neurons and experts fits the model, and is what the plan would say itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.structure.hidden_size import hidden_size
from langslice.structure.kept import Kept
from langslice.structure.output_form import express
from langslice.structure.rotation import basis_of

Sizes = Mapping[str, Mapping[int, int]]


def check_kept(anatomy: Anatomy, kept: Kept) -> None:
    """Refuse a structure that an edited plan gives, where it does not fit the model or is not what it would say itself.

    Raises   PlanError
    """
    heads = {place: {layer: one.query for layer, one in rows.items()} for place, rows in anatomy.heads.items()}
    for by_place, sizes in ((kept.heads, heads), (kept.neurons, anatomy.neurons), (kept.experts, anatomy.experts)):
        _check_numbers(by_place, sizes)
    for stack, layers in kept.layers.items():
        if list(layers) != sorted(set(layers)) or not layers or layers[-1] >= anatomy.layers.get(stack, 0):
            raise PlanError(f"the plan keeps layers {list(layers)} of {stack}, which this model does not have")
    if list(kept.hidden) != sorted(set(kept.hidden)) or (kept.hidden and kept.hidden[-1] >= hidden_size(anatomy)):
        raise PlanError(f"the plan keeps hidden dimensions {list(kept.hidden)[:5]}..., which this model does not have")
    if kept.rotation:
        basis_of(anatomy, kept)
    made = express(
        anatomy,
        layers=kept.layers,
        heads=gone(kept.heads, heads),
        neurons=gone(kept.neurons, anatomy.neurons),
        experts=gone(kept.experts, anatomy.experts),
        style=kept.style,
        hidden=kept.hidden,
        replicate=any(len(set(row)) < len(row) for rows in kept.key_value.values() for row in rows.values()),
    )
    if replace(made, zeroed=kept.zeroed, rotation=kept.rotation) != kept:
        raise PlanError(
            "the plan's structure contradicts itself: its lists of what is kept ask for other key-value heads or settings",
            hint="make a new plan with `langslice plan`; edit only its lists of layers, heads, neurons and experts",
        )


def gone(kept: Mapping[str, Mapping[int, tuple[int, ...]]], sizes: Sizes) -> dict[str, dict[int, list[int]]]:
    """What is not kept, of the places that lose something: place -> old layer -> ascending old indices."""
    return {
        place: {layer: sorted(set(range(sizes[place][layer])) - set(stay)) for layer, stay in rows.items()}
        for place, rows in kept.items()
    }


def _check_numbers(kept: Mapping[str, Mapping[int, tuple[int, ...]]], sizes: Sizes) -> None:
    for place, by_layer in kept.items():
        if place not in sizes:
            raise PlanError(f"the plan keeps parts of `{place}`, which this model does not have")
        for layer, numbers in by_layer.items():
            size = sizes[place].get(layer, 0)
            if list(numbers) != sorted(set(numbers)) or not numbers or numbers[0] < 0 or numbers[-1] >= size:
                raise PlanError(f"the plan keeps {list(numbers)[:5]}... of {place} {layer}, which has 0 to {size - 1}")
