"""What each axis costs by itself, and what that predicts of a combination: losses are taken to add up.

Layers go one after another: first each is left out alone; then, at every depth, the few that cost least alone are each measured
together with those that are gone, and the one that costs least there goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

import numpy as np

from langslice.budgets.cut import KINDS, Cut, Layer, cut_of
from langslice.budgets.points import Points
from langslice.tradeoffs.ladder import ladder_sizes
from langslice.tradeoffs.losses import Loss

Losses = Mapping[str, float]
# Layers that are tried at each depth.
_TRIED: Final = 3
_VOCABULARIES: Final = 6


@dataclass(frozen=True)
class Measured:
    """A cut and what it loses, language by language."""

    cut: Cut
    loss: Mapping[str, Loss]

    @property
    def worst(self) -> float:
        """The loss of the language that loses most."""
        return max(one.value for one in self.loss.values())


@dataclass(frozen=True)
class Costs:
    """What was measured of each axis; the whole choice of tokens, with nothing else cut, is first of each.

    depths   of the layers: one more goes with each
    shares   kind -> shares of it
    others   layers that were left out alone, or tried at a depth where another one went
    """

    vocabulary: Sequence[Measured]
    depths: Sequence[Measured]
    shares: Mapping[str, Sequence[Measured]]
    others: Sequence[Measured] = ()

    def all(self) -> list[Measured]:
        """Everything that was measured, each cut once."""
        every = (*self.vocabulary, *self.depths, *self.others, *(one for kind in self.shares.values() for one in kind))
        return list({one.cut: one for one in every}.values())

    def knows(self, cut: Cut) -> bool:
        """Whether a cut is made of what was measured, so that its loss can be predicted."""
        return all(
            getattr(cut, axis) in {getattr(one.cut, axis) for one in measured}
            for axis, measured in {"layers": self.depths, **self.shares}.items()
        )

    def parts(self, cut: Cut) -> dict[str, Losses]:
        """Axis -> language -> what it adds to the loss of a cut."""
        base = self.vocabulary[0]
        alike = {
            axis: {getattr(one.cut, axis): one for one in measured}[getattr(cut, axis)]
            for axis, measured in {"layers": self.depths, **self.shares}.items()
        }
        above = {
            name: {code: loss.value - base.loss[code].value for code, loss in one.loss.items()}
            for name, one in alike.items()
        }
        return {"vocabulary": self._rows(cut.rows), **above}

    def predict(self, cut: Cut) -> Losses:
        """Language -> the sum of what each axis costs alone."""
        parts = self.parts(cut)
        return {code: sum(one[code] for one in parts.values()) for code in parts["vocabulary"]}

    def _rows(self, rows: int) -> Losses:
        """The loss at a number of rows, on straight lines between those measured, over the logarithm of rows."""
        places = sorted(self.vocabulary, key=lambda one: one.cut.rows)
        xs = [log(one.cut.rows) for one in places]
        return {
            code: float(np.interp(log(max(rows, 1)), xs, [one.loss[code].value for one in places]))
            for code in places[0].loss
        }


Enough = Callable[[Cut], bool]
"""Whether a cut meets the budget: one that cuts more of the same can only lose more."""


def measure_costs(points: Points, enough: Enough, *, cut_rows: bool) -> Costs:
    """Measure each axis alone.

    cut_rows  whether the vocabulary may be cut below the whole choice
    """
    ladder, parts = points.ladder, points.parts
    full = points.full
    sizes = ladder_sizes(full, ladder.least + points.beyond, _VOCABULARIES) if cut_rows else [full]

    others: list[Measured] = []

    def measure(cut: Cut) -> Measured:
        others.append(Measured(cut, points.losses(cut)))
        return others[-1]

    rungs = [Cut(rows) for rows in sizes]
    by_kind = {
        kind: _until([cut_of(full, kind, share) for share in parts.shares.get(kind, ())], enough) for kind in KINDS
    }
    layers = [Cut(full, (layer,)) for layer in parts.layers] if parts.deepest else []
    points.prepare([*rungs, *(cut for cuts in by_kind.values() for cut in cuts), *layers])
    vocabulary = [measure(cut) for cut in rungs]
    base = vocabulary[0]
    shares = {kind: [base, *map(measure, cuts)] for kind, cuts in by_kind.items()}
    alone = [measure(cut) for cut in layers]
    depths = [base, *_depths(alone, points, measure, enough)]
    return Costs(vocabulary, depths, shares, others)


def _until(cuts: Sequence[Cut], enough: Enough) -> list[Cut]:
    """Of cuts, in order, all to the first that meets the budget."""
    found = []
    for cut in cuts:
        found.append(cut)
        if enough(cut):
            break
    return found


def _depths(
    alone: Sequence[Measured], points: Points, measure: Callable[[Cut], Measured], enough: Enough
) -> list[Measured]:
    """One layer after another goes: each time the best of the few that cost least alone."""
    parts = points.parts
    order = [one.cut.layers[0] for one in sorted(alone, key=lambda one: one.worst)]
    full = alone[0].cut.rows if alone else 0
    gone: list[Layer] = []
    found: list[Measured] = []
    while len(gone) < len(parts.deepest):
        left = [layer for layer in order if layer not in gone and parts.may_go(layer, gone)]
        cuts = [Cut(full, tuple(sorted([*gone, layer]))) for layer in left[:_TRIED]]
        if not cuts:
            break
        points.prepare(cuts)
        tried = [measure(cut) for cut in cuts]
        best = min(tried, key=lambda one: one.worst)
        found.append(best)
        gone = list(best.cut.layers)
        if enough(best.cut):
            break
    return found
