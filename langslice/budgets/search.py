"""Which combinations meet the budget, and which of them are measured: every one is predicted, the most promising are tried.

For each structure (a depth of layers; a share of heads, of neurons, of experts, of hidden dimensions) as many rows of the
vocabulary stay as the budget leaves room for. What a try loses more or less than was predicted corrects the prediction of
combinations of a like make-up, so that the next try looks past those that only seemed cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, inf, log
from typing import Any, Final

from langslice.budgets.costs import Costs, Losses, Measured
from langslice.budgets.cut import Cut
from langslice.budgets.limits import Limits, Needs, amount_text, rows_that_fit, taken
from langslice.errors import PlanError
from langslice.tradeoffs.losses import Loss

# Two make-ups that are so far apart, in shares of the loss by axis, tell a third as much of each other as of themselves.
_REACH: Final = 0.3
# So much is held against what few tries say.
_DOUBT: Final = 0.5
_LEAST_LOSS: Final = 1e-6
_MOST_FACTOR: Final = 20.0

NeedsOf = Callable[[Cut], Needs]


@dataclass(frozen=True)
class Trial:
    """A cut, what it takes, and what it loses.

    takes      resource -> bytes, or share of the original's time; as it was computed
    predicted  language -> loss; what the axes cost alone, added up
    loss       language -> loss as it was measured; None where it was not
    latency    share of the original's time as it was measured; None where it was not
    """

    cut: Cut
    takes: Mapping[str, float]
    predicted: Losses
    loss: Mapping[str, Loss] | None = None
    latency: float | None = None

    @property
    def expected(self) -> float:
        """The predicted loss of the language that loses most."""
        return max(self.predicted.values())

    @property
    def worst(self) -> float:
        """The measured loss of the language that loses most; infinite where none was measured."""
        return inf if self.loss is None else max(one.value for one in self.loss.values())

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        loss = None if self.loss is None else {code: vars(one) for code, one in self.loss.items()}
        return {
            "cut": self.cut.to_json(), "text": self.cut.text(), "takes": dict(self.takes), "predicted": dict(self.predicted),
            "loss": loss, "latency": self.latency,
        }  # fmt: skip


def point_of(costs: Costs, needs: NeedsOf, measured: Measured) -> Trial:
    """A measured cut of one axis as a point; where nothing predicts it, the measurement stands for the prediction."""
    own = {code: one.value for code, one in measured.loss.items()}
    predicted = costs.predict(measured.cut) if costs.knows(measured.cut) else own
    return Trial(measured.cut, taken(needs(measured.cut), measured.cut.rows), predicted, measured.loss)


def candidates(costs: Costs, needs: NeedsOf, limits: Limits, *, least: int, multiple: int | None) -> list[Trial]:
    """Every combination of what was measured that meets the budget, each with all the rows that fit, best first.

    least  rows that stay in any case
    """
    full = costs.vocabulary[0].cut.rows
    cut_rows = len(costs.vocabulary) > 1
    found = []
    for structure in structures(costs):
        each = needs(structure)
        rows = rows_that_fit(each, limits, full, multiple)
        if rows >= (least if cut_rows else full):
            cut = replace(structure, rows=rows)
            found.append(Trial(cut, taken(each, rows), costs.predict(cut)))
    return sorted(found, key=lambda point: point.expected)


def best_alone(found: Sequence[Trial], full: int) -> list[Trial]:
    """Of candidates, best first, the best that cuts each axis alone, to hold the combinations against.

    full  rows of the whole choice
    """
    alone: dict[tuple[str, ...], Trial] = {}
    for point in found:
        axes = point.cut.all_axes(full)
        if len(axes) == 1:
            alone.setdefault(axes, point)
    return list(alone.values())


def structures(costs: Costs) -> Iterator[Cut]:
    """Every depth with every share of heads, of neurons, of experts and of hidden dimensions."""
    full = costs.vocabulary[0].cut.rows
    for depth, *parts in product(costs.depths, *costs.shares.values()):
        shares = {kind: getattr(one.cut, kind) for kind, one in zip(costs.shares, parts, strict=True)}
        yield replace(Cut(full, depth.cut.layers), **shares)


def refuse_unreachable(smallest: Mapping[str, float], limits: Limits) -> None:
    """Refuse a budget that nothing meets.

    smallest  resource -> the least that any combination takes of it
    Raises    PlanError that says what the nearest is
    """
    for name, limit in limits.items():
        if smallest[name] > limit:
            raise PlanError(
                f"a {name} of at most {amount_text(name, limit)} cannot be reached: the nearest is "
                f"{amount_text(name, smallest[name])}",
                "allow more, or let more axes be cut (--axes)",
            )


def next_to_try(costs: Costs, waiting: Sequence[Trial], tried: Sequence[Trial]) -> Trial:
    """Of the candidates that wait, the one of the least loss by what tries have shown so far."""
    return min(waiting, key=lambda point: corrected(costs, point, tried))


def corrected(costs: Costs, point: Trial, tried: Sequence[Trial]) -> float:
    """The predicted loss of a point, by what points of a like make-up lost beyond what was predicted of them."""
    own, total, weight = _make_up(costs, point.cut), 0.0, _DOUBT
    for one in tried:
        if one.loss is not None:
            factor = max(one.worst, _LEAST_LOSS) / max(one.expected, _LEAST_LOSS)
            factor = min(max(factor, 1 / _MOST_FACTOR), _MOST_FACTOR)
            distance = sum(abs(share - other) for share, other in zip(own, _make_up(costs, one.cut), strict=True))
            near = exp(-distance / _REACH)
            total, weight = total + near * log(factor), weight + near
    return point.expected * exp(total / weight)


def _make_up(costs: Costs, cut: Cut) -> list[float]:
    """What each axis adds to the predicted loss, as shares."""
    most = [max(0.0, *one.values()) for one in costs.parts(cut).values()]
    return [one / max(sum(most), _LEAST_LOSS) for one in most]


def frontier(points: Sequence[Trial], resource: str) -> list[Trial]:
    """The measured points that no other undercuts in both size and loss, from the largest."""
    best, found = inf, []
    for point in sorted(
        (one for one in points if one.loss is not None), key=lambda one: (one.takes[resource], one.worst)
    ):
        if point.worst < best:
            best = point.worst
            found.append(point)
    return found[::-1]
