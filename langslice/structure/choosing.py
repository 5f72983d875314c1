"""From a choice to what is kept of a model's layers, heads and neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.choice import Choice, listed
from langslice.errors import PlanError
from langslice.structure.anatomy import Anatomy
from langslice.structure.cuts import heads_dropped, kept_layers, neurons_dropped
from langslice.structure.expressing import express
from langslice.structure.kept import Kept

# Entries of a choice that cut something, and those that only say how.
CUTS = ("layers", "drop_layers", "first_layers", "every_layer", "drop_heads", "drop_neurons")
MANNERS = ("output_style", "replicate_kv")


def cuts_structure(choice: Mapping[str, Any]) -> bool:
    """Whether a choice asks for fewer layers, heads or neurons."""
    return any(choice.get(name) not in (None, (), [], False) for name in CUTS)


def choose_structure(anatomy: Anatomy, choice: Choice) -> Kept:
    """Read every structural entry of a choice and find the form in which the cut can be written.

    Raises   PlanError for what does not exist or cannot be expressed
    """
    layers = kept_layers(
        anatomy,
        keep=listed(choice.get("layers")),
        drop=listed(choice.get("drop_layers")),
        first=listed(choice.get("first_layers")),
        every=listed(choice.get("every_layer")),
    )
    heads = heads_dropped(anatomy, listed(choice.get("drop_heads")))
    neurons = neurons_dropped(anatomy, listed(choice.get("drop_neurons")))
    for flag, dropped in (("--drop-heads", heads), ("--drop-neurons", neurons)):
        for place, by_layer in dropped.items():
            stack = place.split(".")[0]
            gone = sorted(layer for layer in by_layer if layer not in layers.get(stack, (layer,)))
            if gone:
                raise PlanError(
                    f"{flag} names layer {gone[0]} of {place}, which is dropped as a whole",
                    hint="leave that layer out of one of the two",
                )
    return express(
        anatomy,
        layers=layers,
        heads=heads,
        neurons=neurons,
        style=choice.get("output_style") or "auto",
        replicate=bool(choice.get("replicate_kv")),
    )
