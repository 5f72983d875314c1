"""The flow of a fit: read the budget, measure each axis, try the most promising combinations, write the best as a slice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from langslice.budgets.cluster_points import measured_on
from langslice.budgets.costs import Costs, measure_costs
from langslice.budgets.cut import Cut
from langslice.budgets.latency import Times, measure_latency, measure_times, time_need, timed_lines
from langslice.budgets.limits import LATENCY, RESOURCES, Limits, Need, Needs, amount_text, read_limits, taken
from langslice.budgets.options import FitOptions
from langslice.budgets.outcome import PICTURE, RESULT, check_folder, difference_note, heal_slice, write_slice
from langslice.budgets.part_scores import scored
from langslice.budgets.parts import SHARES, find_parts
from langslice.budgets.picture import picture
from langslice.budgets.points import Points
from langslice.budgets.search import (
    NeedsOf,
    Trial,
    best_alone,
    candidates,
    next_to_try,
    point_of,
    refuse_unreachable,
)
from langslice.errors import PlanError
from langslice.files.atomic_output import staging_file
from langslice.model.checkpoint import open_checkpoint
from langslice.options import Choice, taking
from langslice.planning.build import make_plan
from langslice.planning.plan import SlicePlan
from langslice.planning.source import settled
from langslice.progress import Report, silent
from langslice.tradeoffs.ladder import Ladder
from langslice.tradeoffs.losses import Loss, measure_of
from langslice.tradeoffs.main import open_ladder
from langslice.version import __version__

FORMAT: Final = "langslice-fit/1"
# So much longer than computed may a slice take.
_MARGIN: Final = 1.25


@dataclass(frozen=True)
class Fit:
    """What `fit` found, and made.

    out      the folder: fit.json, fit.svg, plan.json, the slice in `slice`, after training in `healed`
    measure  what losses are in
    text     where the lines are from; lines is language -> how many
    limits   resource -> the budget
    before   resource -> what the original takes; `rows` of its vocabulary
    points   everything that was measured
    tried    those of them that meet the budget by what was computed, in the order in which they were tried
    chosen   the one that was written
    written  language -> loss of the slice as it was written; healed, after training
    notes    what a user should know
    """

    out: Path
    model: str
    measure: str
    text: str
    lines: Mapping[str, int]
    limits: Limits
    before: Mapping[str, float]
    points: tuple[Trial, ...]
    tried: tuple[Trial, ...]
    chosen: Trial
    written: Mapping[str, Loss]
    healed: Mapping[str, Loss] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": FORMAT, "langslice": __version__, "model": self.model, "measure": self.measure, "text": self.text,
            "lines": dict(self.lines), "limits": dict(self.limits), "before": dict(self.before),
            "points": [point.to_json() for point in self.points], "tried": [point.to_json() for point in self.tried],
            "chosen": self.chosen.to_json(), "written": _losses_json(self.written), "healed": _losses_json(self.healed),
            "notes": list(self.notes),
        }  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the JSON file."""
        with staging_file(Path(path)) as partial:
            partial.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def picture(self) -> str:
        """Loss over what the first limit is of, as an SVG document."""
        return picture(self.model, self.measure, self.points, next(iter(self.limits)))


def _losses_json(found: Mapping[str, Loss] | None) -> dict[str, Any] | None:
    return None if found is None else {code: vars(loss) for code, loss in found.items()}


@taking(FitOptions)
def fit(
    model: str | Path, out: str | Path, *, options: FitOptions, overwrite: bool = False, report: Report = silent
) -> Fit:
    """Find the slice that meets a budget and loses least, over all axes together; write it, verified.

    model      a local folder, or the id of a model on the hub
    out        folder to make, or one that an earlier fit of this began: what was measured there is not measured again
    options    see FitOptions
    overwrite  replace the slice of an earlier fit there
    Raises     PlanError for a budget that cannot be met, and what `plan` and `slice` raise
    """
    out, limits, choice = Path(out), read_limits(options), options.choice()
    checkpoint = open_checkpoint(model, **options.source())
    check_folder(out, checkpoint.folder, overwrite=overwrite)
    source = settled(checkpoint, choice, needs_tokenizer=True)
    with open_ladder(source, choice, report) as ladder, closing(_open_points(ladder, options, out)) as points:
        search = Search(points, limits, options, report)
        search.refuse_unreachable()
        points.parts = scored(points, report)
        with measured_on(options.ray, points, trust_remote_code=options.trust_remote_code, report=report):
            costs = measure_costs(points, search.enough, cut_rows=search.cuts_rows)
            tried = search.tries(costs, choice)
        points.close()
        chosen = search.best(tried)
        made = _plan(points, choice, chosen)
        note = _reason(chosen, tried, limits, measure_of(points.kind), ladder.texts.source)
        made = replace(made, notes=(note, *made.notes))
        written = write_slice(points, model, made, out, options, report)
        healed = heal_slice(points, made, out, options, report)
        found = Fit(
            out, checkpoint.model_id, measure_of(points.kind), ladder.texts.source,
            {code: len(lines) for code, lines in ladder.texts.measured.items()}, limits, search.before(),
            _points(costs, search.needs, tried), tuple(tried), chosen, written, healed,
            (note, *difference_note(chosen.loss or {}, written), *points.parts.notes),
        )  # fmt: skip
    (out / PICTURE).write_text(found.picture(), encoding="utf-8")
    found.save(out / RESULT)
    return found


def _open_points(ladder: Ladder, options: FitOptions, out: Path) -> Points:
    """What can go of the model, and the folder in which it is remembered what that loses."""
    reads_text = any(ladder.texts.learned.values())
    whole = ladder.plan(None)
    parts = find_parts(
        ladder.source, whole.tensors, options.searched(), reads_text=reads_text, extended=bool(whole.extension)
    )
    return Points(ladder, parts, out / "points" if options.measured is None else Path(options.measured))


def _points(costs: Costs, needs: NeedsOf, tried: Sequence[Trial]) -> tuple[Trial, ...]:
    """Everything that was measured: axes alone, then combinations."""
    alone = {one.cut: point_of(costs, needs, one) for one in costs.all()}
    return (*alone.values(), *(point for point in tried if point.cut not in alone))


@dataclass
class Search:
    """The budget, and what combinations take of it."""

    points: Points
    limits: Limits
    options: FitOptions
    report: Report
    times: Times | None = None

    def __post_init__(self) -> None:
        ladder = self.points.ladder
        self.full = self.points.full
        self.cuts_rows = "vocabulary" in self.options.searched()
        self.least = ladder.least + self.points.beyond if self.cuts_rows else self.full
        self.lines = timed_lines(ladder.texts.measured)
        if LATENCY in self.limits:
            self.report("timing the original", 0, 0)
            self.times = measure_times(ladder.source, self.lines)
        self.needs: NeedsOf = lru_cache(maxsize=None)(self._needs)

    def _needs(self, cut: Cut) -> Needs:
        parts = self.points.parts
        found: dict[str, Need] = parts.needs(cut)
        if self.times is not None:
            found[LATENCY] = time_need(parts.source, self.times, parts.kept(cut))
        return found

    def before(self) -> dict[str, float]:
        """Resource -> what the original takes; and its rows."""
        rows = self.points.ladder.source.rows
        return {**taken(self.needs(Cut(self.full)), rows), "rows": rows}

    def enough(self, cut: Cut) -> bool:
        """Whether a cut meets the budget; of time, with a margin for what is measured later."""
        takes = taken(self.needs(cut), cut.rows)
        return all(takes[name] * (_MARGIN if name == LATENCY else 1) <= limit for name, limit in self.limits.items())

    def refuse_unreachable(self) -> None:
        """Refuse a budget that the smallest combination does not meet, before anything is measured."""
        points = self.points
        parts = points.parts
        shares = {kind: max(parts.shares.get(kind, (0.0,))) for kind in SHARES}
        cut = Cut(self.full, parts.deepest, **shares)
        refuse_unreachable(taken(self.needs(cut), self.least), self.limits)
        # Until here all scores were alike, and so may have been other heads than those that go.
        self.needs = lru_cache(maxsize=None)(self._needs)

    def tries(self, costs: Costs, choice: Choice) -> list[Trial]:
        """Measure what cuts one axis alone, then the most promising combinations, one after the other."""
        tried = list[Trial]()
        limits, factors = dict(self.limits), list[float]()
        waiting = self._candidates(costs, limits, choice)
        alone = best_alone(waiting, self.full)
        self.points.prepare([point.cut for point in alone])
        for number in range(len(alone) + self.options.checks):
            waiting = [point for point in waiting if point.cut not in {one.cut for one in tried}]
            if not waiting:
                break
            point = alone[number] if number < len(alone) else next_to_try(costs, waiting, tried)
            point = replace(point, loss=self.points.losses(point.cut))
            if LATENCY in limits:
                point = replace(point, latency=self._latency(point, choice))
                factors.append((point.latency or 0.0) / point.takes[LATENCY])
                # What is left out of the computed time is much the same in the next slice.
                limits[LATENCY] = self.limits[LATENCY] / max(sorted(factors)[len(factors) // 2], 1.0)
                waiting = self._candidates(costs, limits, choice)
            tried.append(point)
        return tried

    def _candidates(self, costs: Costs, limits: Limits, choice: Choice) -> list[Trial]:
        return candidates(costs, self.needs, limits, least=self.least, multiple=choice.get("pad_to_multiple_of"))

    def _latency(self, point: Trial, choice: Choice) -> float:
        self.report(f"timing {point.cut.text()}", 0, 0)
        return measure_latency(self.points.ladder.source, _plan(self.points, choice, point), self.lines)

    def best(self, tried: Sequence[Trial]) -> Trial:
        """The tried point that meets the budget and loses least.

        Raises  PlanError where none does, with the nearest
        """
        limit = self.limits.get(LATENCY)
        fast = [one for one in tried if limit is None or (one.latency is not None and one.latency <= limit)]
        if not fast:
            times = [one.latency for one in tried if one.latency is not None]
            nearest = (
                f"the nearest was measured at {amount_text(LATENCY, min(times))}" if times else "no combination fits"
            )
            raise PlanError(f"the budget cannot be reached: {nearest}", "allow more, or raise --checks")
        best = min(fast, key=lambda one: one.worst)
        most = self.options.max_loss
        if most is not None and best.worst >= most:
            raise PlanError(
                f"--max-loss {most:g}: within the budget, the nearest loses {best.worst:.4f} ({best.cut.text()})",
                "allow more bytes, time or loss; or --heal a slice that loses more",
            )
        return best


def _plan(points: Points, choice: Choice, point: Trial) -> SlicePlan:
    """The ordinary plan of a point."""
    asked = {name: value for name, value in choice.items() if name not in ("loss_texts", "loss_lines")}
    rows = {"max_vocab": len(points.plan(point.cut).kept)} if point.cut.rows < points.full else {}
    parts, cut = points.parts, point.cut
    files = {kind: str(points.learned_file(kind, "parquet")) for kind in parts.scored_kinds}
    hidden = {} if parts.narrowing is None else parts.narrowing.choice(cut.hidden)
    return make_plan(points.ladder.source, {**asked, **rows, **cut.choice(files, hidden, parts.tied(cut))}, silent)


def _reason(chosen: Trial, tried: Sequence[Trial], limits: Limits, measure: str, text: str) -> str:
    """Why a plan is as it is, in a sentence."""
    asked = ", ".join(f"{name} at most {amount_text(name, limits[name])}" for name in RESOURCES if name in limits)
    lost = ", ".join(
        f"{code or 'text'} {one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        for code, one in (chosen.loss or {}).items()
    )
    return (
        f"{asked}: {chosen.cut.text()} lost least of {len(tried)} combinations that were measured: {lost} ({measure}, 95% "
        f"intervals; {text}); {chosen.expected:+.4f} was predicted for the worst of them"
    )
