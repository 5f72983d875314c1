"""What of a model can go besides its vocabulary, in a form that unmodified code loads, and what is left then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Any, Final

import numpy as np

from langslice.budgets.cut import PARTS, WORDS, Cut, Layer, cut_of
from langslice.budgets.limits import MEMORY, SIZE, Need
from langslice.budgets.narrowing import Narrowing, find_narrowing
from langslice.errors import LangsliceError, PlanError
from langslice.model.anatomy import Anatomy
from langslice.planning.build import choose_layers
from langslice.planning.plan import TensorPlan
from langslice.planning.sentence_modules import refuse_what_they_fix
from langslice.planning.size_limit import weight_sizes
from langslice.planning.source import Source
from langslice.progress import silent
from langslice.scoring.expert_selection import experts_to_drop
from langslice.scoring.selection import heads_to_drop, neurons_to_drop
from langslice.scoring.table import OVERALL, Scores, averaged, model_fingerprint
from langslice.structure.dropped_parts import kept_layers
from langslice.structure.kept import Kept
from langslice.structure.output_form import express

# Shares that are tried: those of heads are few, since a model has few of them.
SHARES: Final = {
    "heads": (1 / 6, 1 / 4, 1 / 3, 1 / 2),
    "neurons": tuple(eighth / 8 for eighth in range(1, 7)),
    "experts": tuple(eighth / 8 for eighth in range(1, 7)),
    "hidden": (1 / 12, 1 / 6, 1 / 4, 1 / 3),
}
# No more than this of the layers goes.
_MOST_LAYERS: Final = 0.75

Dropped = Mapping[str, Mapping[int, Sequence[int]]]


@dataclass(frozen=True, eq=False)
class Parts:
    """What can go.

    tensors    of a plan of the vocabulary alone
    layers     that may go; () where none may
    shares     kind -> shares of heads, neurons, experts or hidden dimensions that may go, ascending
    scores     kind -> scores that say which go first; as long as nothing was scored, all are alike
    narrowing  how hidden dimensions go; None where none may
    notes      which axes are not searched, and why
    """

    source: Source
    tensors: Mapping[str, TensorPlan]
    layers: tuple[Layer, ...] = ()
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    narrowing: Narrowing | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def deepest(self) -> tuple[Layer, ...]:
        """As many layers as may go together, the first ones."""
        gone: list[Layer] = []
        for layer in self.layers:
            if len(gone) < ceil(_MOST_LAYERS * len(self.layers)) and self.may_go(layer, gone):
                gone.append(layer)
        return tuple(gone)

    def may_go(self, layer: Layer, gone: Sequence[Layer]) -> bool:
        """Whether its stack keeps a layer when this one goes after those that are gone."""
        return sum(one[0] == layer[0] for one in gone) + 1 < self.source.anatomy.layers[layer[0]]

    @property
    def scored_kinds(self) -> tuple[str, ...]:
        """What scores are needed of: heads also where they go with hidden dimensions."""
        tied = self.narrowing is not None and self.narrowing.tied and "hidden" in self.shares
        return tuple(kind for kind in PARTS if kind in self.shares or (kind == "heads" and tied))

    def tied(self, cut: Cut) -> float:
        """Share of the heads that goes with the hidden dimensions of a cut."""
        return 0.0 if self.narrowing is None else self.narrowing.heads(cut.hidden)

    def gone(self, cut: Cut) -> dict[str, Dropped]:
        """Kind -> the heads, neurons and experts that go."""
        return {
            kind: self.dropped(kind, getattr(cut, kind) or (self.tied(cut) if kind == "heads" else 0)) for kind in PARTS
        }

    def narrowed(self, cut: Cut) -> Kept:
        """What stays of the hidden states; an empty structure where all do."""
        return Kept() if self.narrowing is None else self.narrowing.kept(cut.hidden)

    def dropped(self, kind: str, share: float) -> Dropped:
        """The heads, neurons or experts that a share of every layer is, lowest scores first."""
        if not share:
            return {}
        if kind == "experts":
            return experts_to_drop(self.scores[kind], self.source.anatomy, share)
        choose = heads_to_drop if kind == "heads" else neurons_to_drop
        return choose(self.scores[kind], self.source.anatomy, share, True)

    def kept(self, cut: Cut) -> Kept | None:
        """The structure of a cut; None where the vocabulary alone is cut.

        Raises  PlanError where unmodified code cannot express it
        """
        if not cut.axes:
            return None
        return expressed(self.source.anatomy, cut, self.gone(cut), self.narrowed(cut).hidden)

    def needs(self, cut: Cut) -> dict[str, Need]:
        """Bytes of the written weights, and of them in memory."""
        kept = self.kept(cut)
        anatomy = None if kept is None else self.source.anatomy
        found = {}
        for name in (SIZE, MEMORY):
            sizes = weight_sizes(self.source.checkpoint, self.tensors, anatomy, kept, float32=name == MEMORY)
            found[name] = Need(sizes.fixed, sizes.per_row)
        return found


def expressed(anatomy: Anatomy, cut: Cut, dropped: Mapping[str, Dropped], hidden: tuple[int, ...]) -> Kept:
    """The stock form of a cut, without the heads, neurons and experts that are named: kind -> them.

    hidden  dimensions that stay; () for all
    """
    layers = kept_layers(anatomy, drop=cut.layer_texts())
    heads, neurons, experts = (dropped[kind] for kind in PARTS)
    return express(anatomy, layers=layers, heads=heads, neurons=neurons, experts=experts, hidden=hidden, style="stock")


def find_parts(
    source: Source,
    tensors: Mapping[str, TensorPlan],
    axes: Sequence[str],
    *,
    reads_text: bool = True,
    extended: bool = False,
) -> Parts:
    """What of a model can go, of the axes that are searched.

    reads_text  whether there is text to choose hidden dimensions by
    extended    whether the vocabulary gets new tokens
    """
    bare = Parts(source, tensors)
    if not set(axes) - {"vocabulary"}:
        return bare
    notes: list[str] = []
    layers: tuple[Layer, ...] = ()
    shares: dict[str, tuple[float, ...]] = {}
    try:
        known = bool(source.anatomy.layers)
    except LangsliceError as error:
        return Parts(source, tensors, notes=(_unsearched("layers and what is inside them", error),))
    if known and "layers" in axes:
        layers, why = _free_layers(source)
        notes += why
    kinds = [kind for kind in SHARES if kind in axes and (kind != "experts" or any(source.anatomy.experts.values()))]
    scores: dict[str, Scores] = {
        kind: _alike(source, kind) for kind in PARTS if kind in kinds or (kind == "heads" and "hidden" in kinds)
    }
    flat = Parts(source, tensors, layers, {}, scores)
    for kind in kinds:
        try:
            _refuse_unsliceable(source, kind)
            if kind == "hidden":
                flat = replace(flat, narrowing=find_narrowing(source, reads_text=reads_text, extended=extended))
            shares[kind] = _shares(flat, kind)
        except PlanError as error:
            notes.append(_unsearched(WORDS.get(kind, kind), error))
    return replace(flat, shares=shares, notes=tuple(notes))


def _unsearched(what: str, error: LangsliceError) -> str:
    return f"{what} stay whole: {error.message.splitlines()[0]}"


def _free_layers(source: Source) -> tuple[tuple[Layer, ...], list[str]]:
    """Layers that may go, and why none may."""
    body = source.anatomy.body
    found = [
        (stack, layer)
        for stack, count in source.anatomy.layers.items()
        for layer in range(1 if body.first_layer else 0, count)
        if count > 1 and source.anatomy.fields(stack).layers
    ]
    if not found:
        return (), ["layers stay whole: the model has none that could go"]
    try:
        choose_layers(source, {"drop_layers": Cut(0, (found[-1],)).layer_texts(), "output_style": "stock"}, silent)
    except LangsliceError as error:
        return (), [_unsearched("layers", error)]
    return tuple(found), []


def _refuse_unsliceable(source: Source, kind: str) -> None:
    anatomy = source.anatomy
    refuse_what_they_fix(source.checkpoint, anatomy, layers=False)
    if source.checkpoint.config_section:
        raise PlanError("the model is inside a wrapper, where the vocabulary alone can be sliced")
    if kind in PARTS and not any(getattr(anatomy, kind).values()):
        raise PlanError(f"the model has no {kind} that are known")
    if kind == "neurons" and any(anatomy.expert_layers.values()):
        raise PlanError("they are those of experts, which cannot be silenced one by one")


def _shares(parts: Parts, kind: str) -> tuple[float, ...]:
    """The shares that can be expressed, each another number of heads or neurons.

    Raises  PlanError where none can
    """
    found: dict[str, float] = {}
    refused: PlanError | None = None
    for share in SHARES[kind]:
        try:
            cut = cut_of(0, kind, share)
            parts.kept(cut)
            gone = parts.narrowed(cut).hidden if kind == "hidden" else parts.dropped(kind, share)
            found.setdefault(repr(gone), share)
        except PlanError as error:
            refused = error
    if not found:
        raise refused or PlanError("a layer has too few")
    return tuple(found.values())


def _alike(source: Source, kind: str) -> Scores:
    """Scores that are all the same, for what depends on numbers alone."""
    anatomy = source.anatomy
    values: dict[str, dict[int, Any]]
    if kind == "heads":
        values = {place: {at: np.ones(one.query) for at, one in rows.items()} for place, rows in anatomy.heads.items()}
    else:
        counts = getattr(anatomy, kind)
        values = {stack: {at: np.ones(count) for at, count in rows.items()} for stack, rows in counts.items() if rows}
    if not values:
        values = {"": {0: np.ones(1)}}
    columns = averaged({OVERALL: [values, values]}, overall=False)
    checkpoint = source.checkpoint
    method = "routed" if kind == "experts" else "l1"
    return Scores(kind, method, model=checkpoint.model_id, fingerprint=model_fingerprint(checkpoint), **columns)
