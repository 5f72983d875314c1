"""Options of a structure: which layers, heads, neurons, experts and rows are dropped, by number or by score, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Entry, Options

STYLE_NAMES: Final = ("auto", "stock", "sliced", "masked")
HIDDEN_SCORES: Final = ("activation", "l2", "rotation")


@dataclass(frozen=True, kw_only=True)
class LayerOptions(Options):
    """Which layers stay."""

    error = PlanError
    group = "Layers, heads, neurons"

    layers: Annotated[
        int | str | Sequence[int | str],
        Entry("Layers to keep: 0-3,8-11; encoder.0-3 in a model with two stacks.", "LAYERS"),
    ] = ()
    drop_layers: Annotated[
        int | str | Sequence[int | str], Entry("Layers to drop: 4-7, decoder.2.", "LAYERS", common=True)
    ] = ()
    first_layers: Annotated[int | str | Sequence[int | str], Entry("Keep the first N layers: 4, decoder.4.", "N")] = ()
    every_layer: Annotated[
        int | str | Sequence[int | str], Entry("Keep every K-th layer, starting with the first.", "K")
    ] = ()
    drop_layers_by: Annotated[
        str | Sequence[str],
        Entry("Drop the N layers with the lowest scores: block-influence:4, layers.parquet:4.", "SCORES:N"),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class PartOptions(Options):
    """Which heads, neurons and rows go, by number or by score."""

    error = PlanError
    group = "Layers, heads, neurons"

    drop_heads: Annotated[
        str | Sequence[str], Entry("Attention heads to drop, LAYER:HEADS: 3:0,5, decoder.cross.2:1.", "WHERE")
    ] = ()
    heads_sparsity: Annotated[
        float | None,
        Entry(
            "Share of the attention heads to drop, lowest scores first: 0.25.", "SHARE", least=0, most=1, common=True
        ),
    ] = None
    heads_by: Annotated[
        str | None,
        Entry(
            "Scores of heads: a method of `langslice score` or its file. Default: gradient with --calibration, else l1.",
            "SCORES",
        ),
    ] = None
    drop_neurons: Annotated[
        str | Sequence[str], Entry("Feed-forward neurons to drop, LAYER:NEURONS: 3:0-99.", "WHERE")
    ] = ()
    neurons_sparsity: Annotated[
        float | None,
        Entry(
            "Share of the feed-forward neurons to drop, lowest scores first: 0.2.",
            "SHARE",
            least=0,
            most=1,
            common=True,
        ),
    ] = None
    neurons_by: Annotated[
        str | None,
        Entry(
            "Scores of neurons: a method of `langslice score` or its file. Default: taylor with --calibration, else l2.",
            "SCORES",
        ),
    ] = None
    hidden_size: Annotated[
        int | None,
        Entry(
            "Hidden dimensions to keep, those with the highest scores, of the whole model: 576.",
            "N",
            least=1,
            common=True,
        ),
    ] = None
    hidden_by: Annotated[
        str | None,
        Entry(
            "How hidden dimensions are chosen: activation, l2, rotation. Default: activation with --calibration, else l2.",
            "SCORES",
            values=HIDDEN_SCORES,
        ),
    ] = None
    score_texts: Annotated[
        str | Sequence[str],
        Entry(
            "Calibration text that scores are measured on; ko=ko.txt states its language.",
            "[CODE=]PATH",
            named="calibration",
            was=("score_texts",),
        ),
    ] = ()
    prune_rows: Annotated[
        str | Sequence[str],
        Entry(
            'Set the rows of linear layers with the lowest norms to zero: "encoder.layer.*.attention.self.query=0.2:l1".',
            "PATTERN=SHARE",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ExpertOptions(Options):
    """Which experts go, by number or by score; as many of each layer."""

    error = PlanError
    group = "Layers, heads, neurons"

    drop_experts: Annotated[
        str | Sequence[str], Entry("Experts to drop, LAYERS:EXPERTS: 3:0,5, 0-23:1,6.", "WHERE")
    ] = ()
    experts_sparsity: Annotated[
        float | None,
        Entry("Share of the experts of each layer to drop, lowest scores first: 0.25.", "SHARE", least=0, most=1),
    ] = None
    experts_by: Annotated[
        str | None,
        Entry(
            "Scores of experts: a method of `langslice score` or its file. Default: routed, which needs --calibration.",
            "SCORES",
        ),
    ] = None
    language_experts: Annotated[
        bool, Entry("Drop experts that serve only languages outside --languages, as many of each layer.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class FormOptions(Options):
    """Of which languages, how evenly, and in which form they go."""

    error = PlanError
    group = "Layers, heads, neurons"

    language_neurons: Annotated[
        bool, Entry("Drop neurons and heads that serve only languages outside --languages.")
    ] = False
    even: Annotated[
        bool,
        Entry(
            "Drop the same number in every layer, so that the unmodified class loads the result.",
            named="uniform",
            was=("even",),
        ),
    ] = False
    output_style: Annotated[
        str | None,
        Entry(
            "stock (unmodified class), sliced (per-layer sizes, own class) or masked (zeros). Default: the first that fits.",
            "STYLE",
            values=STYLE_NAMES,
        ),
    ] = None
    replicate_kv: Annotated[
        bool, Entry("Give each query head its own key-value head where groups get different sizes.")
    ] = False


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class StructureOptions(FormOptions, ExpertOptions, PartOptions, LayerOptions):
    """Which layers, heads, neurons and experts go, and the form in which that is written."""

    error = PlanError
