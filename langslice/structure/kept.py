"""What a structural slice keeps, and in which form it is written: the structural part of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langslice.errors import PlanError

STYLES = ("stock", "sliced", "masked")


@dataclass(frozen=True)
class Kept:
    """Old indices that stay; a stack, attention or layer that is not named stays whole.

    style      "stock": other sizes in config.json; "sliced": per-layer sizes, with model/modeling_sliced.py; "masked": zeros
    layers     stack -> ascending old layers
    heads      attention -> old layer -> ascending old query heads
    key_value  attention -> old layer -> old key-value head of each new one; one may repeat (replicated)
    neurons    stack -> old layer -> ascending old neurons
    experts    stack -> old layer -> ascending old experts
    config     dotted field of config.json -> new value
    zeroed     tensor (old name) -> dimension -> old indices that are set to zero and stay
    hidden     ascending old dimensions of the hidden states, or after a rotation as many numbers; () where all stay
    rotation   the basis that hidden states are rotated to, as text (structure/rotation.py); "" for none
    """

    style: str = "stock"
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    heads: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    key_value: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    neurons: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    experts: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    zeroed: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    hidden: tuple[int, ...] = ()
    rotation: str = ""

    @property
    def writes_zeros(self) -> bool:
        """Whether zeros are written into the shards."""
        return self.style == "masked" or bool(self.zeroed)

    @property
    def rewrites(self) -> bool:
        """Whether shards are changed once they are written, and so must not be links to the source's."""
        return self.writes_zeros or bool(self.hidden)

    def keeps_layer(self, stack: str, layer: int) -> bool:
        """Whether a layer stays."""
        return stack not in self.layers or layer in self.layers[stack]

    def new_layer(self, stack: str, layer: int) -> int:
        """New number of a layer that stays."""
        return self.layers[stack].index(layer) if stack in self.layers else layer


def kept_json(kept: Kept) -> dict[str, Any]:
    """As JSON; layers are keys of text there."""

    def by_layer(table: Mapping[str, Mapping[int, tuple[int, ...]]]) -> dict[str, dict[str, list[int]]]:
        return {place: {str(layer): list(v) for layer, v in rows.items()} for place, rows in table.items()}

    return {
        "style": kept.style,
        "layers": {stack: list(layers) for stack, layers in kept.layers.items()},
        "heads": by_layer(kept.heads),
        "key_value_heads": by_layer(kept.key_value),
        "neurons": by_layer(kept.neurons),
        **({"experts": by_layer(kept.experts)} if kept.experts else {}),
        **({"hidden": list(kept.hidden)} if kept.hidden else {}),
        **({"rotation": kept.rotation} if kept.rotation else {}),
        "config": dict(kept.config),
        "zeroed": by_layer(kept.zeroed),
    }


def kept_from_json(document: Any, *, place: str) -> Kept:
    """Read what `kept_json` wrote, possibly edited since.

    Raises   PlanError that names what is wrong
    """

    def by_layer(name: str) -> dict[str, dict[int, tuple[int, ...]]]:
        table = document.get(name, {})
        return {
            key: {int(layer): tuple(int(v) for v in values) for layer, values in rows.items()}
            for key, rows in table.items()
        }

    known = {
        "style",
        "layers",
        "heads",
        "key_value_heads",
        "neurons",
        "experts",
        "hidden",
        "rotation",
        "config",
        "zeroed",
    }
    if not isinstance(document, dict) or set(document) - known:
        extra = sorted(set(document) - known)[:1] if isinstance(document, dict) else [type(document).__name__]
        raise PlanError(
            f"{place}: unknown entry `{extra[0]}` in `structure`", hint=f"it has {', '.join(sorted(known))}"
        )
    try:
        kept = Kept(
            document.get("style", "stock"),
            {stack: tuple(int(v) for v in layers) for stack, layers in document.get("layers", {}).items()},
            by_layer("heads"),
            by_layer("key_value_heads"),
            by_layer("neurons"),
            by_layer("experts"),
            dict(document.get("config", {})),
            by_layer("zeroed"),
            tuple(int(v) for v in document.get("hidden", ())),
            str(document.get("rotation", "")),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise PlanError(f"{place}: `structure` is damaged: {error}") from error
    if kept.style not in STYLES:
        raise PlanError(f"{place}: style `{kept.style}` is not one of {', '.join(STYLES)}")
    return kept
