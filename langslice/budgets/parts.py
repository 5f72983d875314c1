"""What of a model can go besides its vocabulary, in a form that unmodified code loads, and what is left then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any, Final

import numpy as np

from langslice.budgets.cut import KINDS, Cut, Layer, cut_of
from langslice.budgets.limits import MEMORY, SIZE, Need
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
}
# No more than this of the layers goes.
_MOST_LAYERS: Final = 0.75

Dropped = Mapping[str, Mapping[int, Sequence[int]]]


@dataclass(frozen=True, eq=False)
class Parts:
    """What can go.

    tensors  of a plan of the vocabulary alone
    layers   that may go; () where none may
    shares   kind -> shares of heads, neurons or experts that may go, ascending
    scores   kind -> scores that say which go first; as long as nothing was scored, all are alike
    notes    which axes are not searched, and why
    """

    source: Source
    tensors: Mapping[str, TensorPlan]
    layers: tuple[Layer, ...] = ()
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
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
        return expressed(
            self.source.anatomy, cut, {kind: self.dropped(kind, share) for kind, share in cut.shares().items()}
        )

    def needs(self, cut: Cut) -> dict[str, Need]:
        """Bytes of the written weights, and of them in memory."""
        kept = self.kept(cut)
        anatomy = None if kept is None else self.source.anatomy
        found = {}
        for name in (SIZE, MEMORY):
            sizes = weight_sizes(self.source.checkpoint, self.tensors, anatomy, kept, float32=name == MEMORY)
            found[name] = Need(sizes.fixed, sizes.per_row)
        return found


def expressed(anatomy: Anatomy, cut: Cut, dropped: Mapping[str, Dropped]) -> Kept:
    """The stock form of a cut, without the heads, neurons and experts that are named: kind -> them."""
    layers = kept_layers(anatomy, drop=cut.layer_texts())
    heads, neurons, experts = (dropped[kind] for kind in KINDS)
    return express(anatomy, layers=layers, heads=heads, neurons=neurons, experts=experts, style="stock")


def find_parts(source: Source, tensors: Mapping[str, TensorPlan], axes: Sequence[str]) -> Parts:
    """What of a model can go, of the axes that are searched."""
    bare = Parts(source, tensors)
    if not set(axes) - {"vocabulary"}:
        return bare
    notes: list[str] = []
    layers: tuple[Layer, ...] = ()
    shares: dict[str, tuple[float, ...]] = {}
    try:
        known = bool(source.anatomy.layers)
    except LangsliceError as error:
        return Parts(source, tensors, notes=(_unsearched("layers, heads, neurons and experts", error),))
    if known and "layers" in axes:
        layers, why = _free_layers(source)
        notes += why
    kinds = [kind for kind in SHARES if kind in axes and (kind != "experts" or any(source.anatomy.experts.values()))]
    scores = {kind: _alike(source, kind) for kind in kinds}
    flat = Parts(source, tensors, layers, {}, scores)
    for kind in scores:
        try:
            _refuse_unsliceable(source, kind)
            shares[kind] = _shares(flat, kind)
        except PlanError as error:
            notes.append(_unsearched(kind, error))
    return Parts(source, tensors, layers, shares, scores, tuple(notes))


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
    if not any(getattr(anatomy, kind).values()):
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
            found.setdefault(repr(parts.dropped(kind, share)), share)
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
