"""Options of a structure: which layers, heads, neurons and rows go, by number or by score, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Entry, Options

STYLE_NAMES: Final = ("auto", "stock", "sliced", "masked")


@dataclass(frozen=True, kw_only=True)
class LayerOptions(Options):
    """Which layers stay."""

    error = PlanError

    layers: Annotated[
        int | str | Sequence[int | str],
        Entry("Layers to keep: 0-3,8-11; encoder.0-3 where there are two stacks.", "LAYERS"),
    ] = ()
    drop_layers: Annotated[int | str | Sequence[int | str], Entry("Layers to drop: 4-7, decoder.2.", "LAYERS")] = ()
    first_layers: Annotated[int | str | Sequence[int | str], Entry("Keep the first N layers: 4, decoder.4.", "N")] = ()
    every_layer: Annotated[int | str | Sequence[int | str], Entry("Keep every K-th layer, from the first.", "K")] = ()
    drop_layers_by: Annotated[
        str | Sequence[str], Entry("Drop the lowest-scored layers: block-influence:4, layers.parquet:4.", "SCORES:N")
    ] = ()


@dataclass(frozen=True, kw_only=True)
class PartOptions(Options):
    """Which heads, neurons and rows go, by number or by score."""

    error = PlanError

    drop_heads: Annotated[
        str | Sequence[str], Entry("Attention heads to drop, LAYER:HEADS: 3:0,5, decoder.cross.2:1.", "WHERE")
    ] = ()
    heads_sparsity: Annotated[
        float | None, Entry("Share of heads to drop by score: 0.25.", "SHARE", least=0, most=1)
    ] = None
    heads_by: Annotated[
        str | None, Entry("Method of `langslice score`, or its file; gradient with text, else l2.", "SCORES")
    ] = None
    drop_neurons: Annotated[
        str | Sequence[str], Entry("Feed-forward neurons to drop, LAYER:NEURONS: 3:0-99.", "WHERE")
    ] = ()
    neurons_sparsity: Annotated[
        float | None, Entry("Share of neurons to drop by score: 0.2.", "SHARE", least=0, most=1)
    ] = None
    neurons_by: Annotated[
        str | None, Entry("Method of `langslice score`, or its file; activation with text, else l2.", "SCORES")
    ] = None
    score_texts: Annotated[
        str | Sequence[str], Entry("Text to measure scores on; ko=ko.txt says its language.", "[CODE=]PATH")
    ] = ()
    prune_rows: Annotated[
        str | Sequence[str],
        Entry(
            'Set the lowest rows of linears to zero: "encoder.layer.*.attention.self.query=0.2:l1".', "PATTERN=SHARE"
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class FormOptions(Options):
    """Of which languages, how evenly, and in which form they go."""

    error = PlanError

    language_neurons: Annotated[
        bool, Entry("Drop neurons and heads that serve only languages outside --languages.")
    ] = False
    even: Annotated[bool, Entry("Drop equally many in every layer, so that stock code can express it.")] = False
    output_style: Annotated[
        str | None,
        Entry(
            "stock (plain config), sliced (sizes by layer, own code) or masked (zeros); by default what fits.",
            "STYLE",
            values=STYLE_NAMES,
        ),
    ] = None
    replicate_kv: Annotated[
        bool, Entry("Give query heads key-value heads of their own where groups become uneven.")
    ] = False


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class StructureOptions(FormOptions, PartOptions, LayerOptions):
    """Which layers, heads and neurons go, and the form in which that is written."""

    error = PlanError
