"""Whether what scores are to choose can be written at all, told before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from langslice.model.anatomy import Anatomy, Heads
from langslice.structure.kept import Kept
from langslice.structure.output_form import (
    EXPERT_MULTIPLE,
    key_value_heads,
    not_stock,
    refuse_common_norm,
    refuse_sizes_by_layer,
)


def refuse_by_score(
    anatomy: Anatomy, *, heads: bool, neurons: bool, even: bool, style: str, narrower: bool = False
) -> None:
    """Refuse a slice by score that cannot be written whatever the scores are, by the smallest slice of its kind.

    even      the same number goes in every layer; else other numbers in each
    narrower  hidden dimensions go too, and with them heads whose size a class ties to their number
    Raises    PlanError with the reason
    """
    if style == "masked":
        return
    if heads:
        hidden = (0,) if narrower else ()
        _refuse(anatomy, Kept("stock", {}, _smallest(anatomy.heads, even), hidden=hidden), style)
    if neurons:
        _refuse(anatomy, Kept("stock", {}, {}, {}, _smallest(anatomy.neurons, even)), style)


def _smallest(places: Mapping[str, Mapping[int, Heads | int]], even: bool) -> dict[str, dict[int, tuple[int, ...]]]:
    """What the smallest slice keeps of every layer, or of the first one alone; a layer that has too little stays whole."""
    smallest: dict[str, dict[int, tuple[int, ...]]] = {}
    for place, layers in places.items():
        rows = {layer: stay for layer, size in layers.items() if (stay := _one_less(size))}
        if rows:
            smallest[place] = rows if even else dict([next(iter(rows.items()))])
    return smallest


def _one_less(size: Heads | int) -> tuple[int, ...]:
    """What stays of a layer without its first heads that share a key-value head, or without its first neurons."""
    if isinstance(size, int):
        return tuple(range(size % EXPERT_MULTIPLE or EXPERT_MULTIPLE, size))
    return tuple(range(size.group if size.key_value > 1 else 1, size.query))


def _refuse(anatomy: Anatomy, kept: Kept, style: str) -> None:
    kept = replace(kept, key_value=key_value_heads(anatomy, kept, replicate=False))
    refuse_common_norm(anatomy, kept)
    reason = not_stock(anatomy, kept)
    if reason:
        refuse_sizes_by_layer(anatomy, kept, style, reason)
