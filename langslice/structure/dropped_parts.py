"""What a user asks to cut, as text, and as lists of what is dropped.

layers   "0-3,8-11", in a model with two stacks "encoder.0-3"
heads    "3:0,5" layer 3, heads 0 and 5; "decoder.cross.2:1" in a model with several attentions
neurons  "3:0-99", "decoder.2:5", "0-11:0-99" the same of several layers
experts  "3:1,5", "1-47:1,5"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy

Dropped = dict[str, dict[int, set[int]]]
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_numbers(text: str, *, what: str) -> list[int]:
    """Read "0-3,8" as [0, 1, 2, 3, 8].

    Raises   PlanError that shows the form
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None or (found[2] and int(found[2]) < int(found[1])):
            raise PlanError(f"{what} `{text}`: `{part}` is not a number or a range", hint="write 0-3,8-11")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers


def kept_layers(
    anatomy: Anatomy,
    *,
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    first: Sequence[str] = (),
    every: Sequence[str] = (),
) -> dict[str, tuple[int, ...]]:
    """Layers that stay, for each stack of which any go.

    keep, drop    lists of layers, "0-3" or "encoder.0-3"
    first, every  a number of layers, or a step: "4" or "decoder.4"; without a stack, it holds for all
    Returns       stack -> ascending old layers
    Raises        PlanError for a layer that does not exist, and when a stack would lose all of its layers
    """
    kept = {stack: set(range(count)) for stack, count in anatomy.layers.items()}
    for text in keep:
        stack, numbers = _layers(anatomy, text, "--layers")
        kept[stack] &= set(numbers)
    for text in drop:
        stack, numbers = _layers(anatomy, text, "--drop-layers")
        kept[stack] -= set(numbers)
    for text in first:
        for stack, number in _steps(anatomy, text, "--first-layers").items():
            if number > anatomy.layers[stack]:
                raise PlanError(f"--first-layers {text}: the {stack} stack has {anatomy.layers[stack]} layers")
            kept[stack] &= set(range(number))
    for text in every:
        for stack, number in _steps(anatomy, text, "--every-layer").items():
            kept[stack] &= set(range(0, anatomy.layers[stack], number))
    cut = {stack: layers for stack, layers in kept.items() if len(layers) < anatomy.layers[stack]}
    for stack, layers in cut.items():
        if not anatomy.fields(stack).layers:
            raise PlanError(
                "one set of weights serves all layers of this model, so that none of them can be removed from the file",
                hint="lower `num_hidden_layers` in config.json yourself: it changes how often the layer is applied",
            )
        if not layers:
            raise PlanError(f"no layer of the {stack} stack would be left", hint="keep at least one")
        if anatomy.body.first_layer and 0 not in layers:
            raise PlanError(
                f"layer 0 of a {anatomy.body.model_types[0]} model cannot be removed: {anatomy.body.first_layer}",
                hint=f"the nearest slice that can be expressed keeps layer 0: --layers 0,{_listing(sorted(layers)[1:])}",
            )
    return {stack: tuple(sorted(layers)) for stack, layers in cut.items()}


def _layers(anatomy: Anatomy, text: str, flag: str) -> tuple[str, list[int]]:
    stack, rest = _stack(anatomy, text, flag)
    numbers = parse_numbers(rest, what=flag)
    beyond = [number for number in numbers if number >= anatomy.layers[stack]]
    if beyond:
        raise PlanError(
            f"{flag} {text}: layer {beyond[0]} does not exist",
            hint=f"the {stack} stack has layers 0 to {anatomy.layers[stack] - 1}",
        )
    return stack, numbers


def _stack(anatomy: Anatomy, text: str, flag: str) -> tuple[str, str]:
    """Split "encoder.0-3" into its stack and the rest."""
    stack, dot, rest = text.rpartition(".")
    if dot and stack in anatomy.layers:
        return stack, rest
    if not dot and len(anatomy.layers) == 1:
        return next(iter(anatomy.layers)), text
    names = " or ".join(f"{flag} {name}.{text.rpartition('.')[2]}" for name in anatomy.layers)
    raise PlanError(f"{flag} {text}: which stack? this model has {', '.join(anatomy.layers)}", hint=f"write {names}")


def _steps(anatomy: Anatomy, text: str, flag: str) -> dict[str, int]:
    _, dot, rest = str(text).rpartition(".")
    stacks = [_stack(anatomy, text, flag)[0]] if dot else list(anatomy.layers)
    if not rest.isdigit() or int(rest) < 1:
        raise PlanError(f"{flag} {text}: `{rest}` is not a positive number")
    return dict.fromkeys(stacks, int(rest))


def heads_dropped(anatomy: Anatomy, texts: Iterable[str]) -> Dropped:
    """Read --drop-heads.

    Returns  attention -> layer -> heads
    Raises   PlanError for an attention, layer or head that does not exist
    """
    dropped: Dropped = {}
    for text in texts:
        where, colon, numbers = text.partition(":")
        if not colon:
            raise PlanError(
                f"--drop-heads {text}: no heads", hint="write LAYER:HEADS, such as 3:0,5 or decoder.cross.2:1"
            )
        place, _, layer = where.rpartition(".")
        key = _attention(anatomy, place, text)
        by_layer = anatomy.heads[key]
        if not layer.isdigit() or int(layer) not in by_layer:
            raise PlanError(
                f"--drop-heads {text}: layer {layer or '(none)'} of {key} does not exist",
                hint=f"its layers are {min(by_layer)} to {max(by_layer)}",
            )
        heads = parse_numbers(numbers, what="--drop-heads")
        count = by_layer[int(layer)].query
        if max(heads) >= count:
            raise PlanError(
                f"--drop-heads {text}: head {max(heads)} does not exist", hint=f"the layer has heads 0 to {count - 1}"
            )
        dropped.setdefault(key, {}).setdefault(int(layer), set()).update(heads)
    return dropped


def _attention(anatomy: Anatomy, place: str, text: str) -> str:
    names = [place, f"{place}.self" if place else "", "" if place else next(iter(anatomy.heads), "")]
    if not place and len(anatomy.heads) > 1:
        raise PlanError(
            f"--drop-heads {text}: which attention? this model has {', '.join(anatomy.heads)}",
            hint="write " + " or ".join(f"{key}.{text}" for key in anatomy.heads),
        )
    for name in names:
        if name in anatomy.heads:
            return name
    raise PlanError(
        f"--drop-heads {text}: there is no attention `{place}`",
        hint=f"this model has {', '.join(anatomy.heads) or 'none'}",
    )


def neurons_dropped(anatomy: Anatomy, texts: Iterable[str]) -> Dropped:
    """Read --drop-neurons.

    Returns  stack -> layer -> neurons
    Raises   PlanError for a layer or neuron that does not exist
    """
    return _dropped(anatomy, texts, anatomy.neurons, "--drop-neurons", "neuron")


def experts_dropped(anatomy: Anatomy, texts: Iterable[str]) -> Dropped:
    """Read --drop-experts.

    Returns  stack -> layer -> experts
    Raises   PlanError for a layer or expert that does not exist
    """
    return _dropped(anatomy, texts, anatomy.experts, "--drop-experts", "expert")


def _dropped(
    anatomy: Anatomy, texts: Iterable[str], sizes: Mapping[str, Mapping[int, int]], flag: str, unit: str
) -> Dropped:
    dropped: Dropped = {}
    for text in texts:
        where, colon, listed = text.partition(":")
        if not colon:
            raise PlanError(f"{flag} {text}: no {unit}s", hint=f"write LAYER:{unit.upper()}S, such as 3:0,5")
        stack, layers = _layers(anatomy, where, flag)
        numbers = parse_numbers(listed, what=flag)
        for layer in layers:
            size = sizes[stack].get(layer, 0)
            if max(numbers) >= size:
                raise PlanError(
                    f"{flag} {text}: {unit} {max(numbers)} does not exist",
                    hint=f"layer {layer} has {unit}s 0 to {size - 1}" if size else f"layer {layer} has no {unit}s",
                )
            dropped.setdefault(stack, {}).setdefault(layer, set()).update(numbers)
    return dropped


def merge(*parts: Mapping[str, Mapping[int, Iterable[int]]]) -> Dropped:
    """The union of several lists of what is dropped."""
    union: Dropped = {}
    for part in parts:
        for place, by_layer in part.items():
            for layer, numbers in by_layer.items():
                union.setdefault(place, {}).setdefault(layer, set()).update(numbers)
    return union


def _listing(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
