"""Which conditions differ, and how much of it is chance: paired tests, tables over sparsities, the spread over seeds.

Every run keeps its items, so that any two conditions are compared on the same items, not only each with the whole model. Over all
languages together, an item is one line in all its languages: lines are resampled, not their translations by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from langslice.evaluation.measurement import Measurement, measurement_from_json
from langslice.evaluation.statistics import Difference, difference
from langslice.evaluation.tables import SIGNIFICANT, number_text
from langslice.reproduction.tables import Sheet
from langslice.sweeps.result import Finished, Sweep

Metrics = Mapping[str, tuple[str, str]]  # title of a table -> task and metric
ALL = "all"


class Condition(NamedTuple):
    """One way to prune: its name in the tables, the share of weights removed, and the seed; no seed where nothing is drawn."""

    kind: str
    sparsity: float
    seed: int | None

    def __str__(self) -> str:
        """Such as `random at 0.3, seed 1`."""
        if not self.sparsity:
            return self.kind
        return f"{self.kind} at {self.sparsity:g}" + (f", seed {self.seed}" if self.seed is not None else "")


def measured(run: Finished, task: str, metric: str) -> dict[str, Measurement]:
    """Measurements of one metric by language, and of all languages together where their items belong together."""
    found = [measurement_from_json(each) for each in (run.result or {}).get("measured", ())]
    by_language = {each.language: each for each in found if (each.task, each.metric) == (task, metric)}
    together = pooled(list(by_language.values()))
    return by_language if together is None else {**by_language, ALL: together}


def pooled(each: Sequence[Measurement]) -> Measurement | None:
    """Languages together, item by item: counts are added, means averaged; None for one language, or items not parallel.

    Example  bits and bytes of line 1 in French and in Chinese become one item, (sum of bits, sum of bytes)
    """
    if len(each) < 2 or len({one.items.shape for one in each}) > 1:
        return None
    first = each[0]
    if first.statistic not in ("mean", "ratio", "bleu", "chrf"):
        return None
    items = np.sum([one.items for one in each], axis=0)
    if first.statistic == "mean":
        items = items / len(each)
    return Measurement(first.task, ALL, first.metric, first.statistic, items, first.better)


def changes(done: Sweep, names: Sequence[str], metrics: Metrics) -> list[Sheet]:
    """For each metric, what every condition changes in the whole model, with 95% intervals and p."""
    whole = done.runs[0]
    sheets = []
    for title, where in metrics.items():
        before = measured(whole, *where)
        rows = []
        for name, run in zip(names[1:], done.runs[1:], strict=True):
            after = measured(run, *where)
            rows.append((name, tuple(_change(before.get(code), after.get(code), where[1]) for code in before)))
        if before and rows:
            sheets.append(Sheet(f"{title}: change from unpruned", tuple(before), tuple(rows)))
    return sheets


def against_others(done: Sweep, names: Sequence[str], metrics: Metrics) -> list[Sheet]:
    """Each condition of translation minus each other way to prune, on the same items, all languages together."""
    runs = dict(zip(names, done.runs, strict=True))
    present = {title: where for title, where in metrics.items() if measured(done.runs[0], *where)}
    rows = []
    for name in names:
        for other in names:
            if name.startswith("mt ") and other != "unpruned" and not other.startswith("mt "):
                cells = [
                    _change(_whole(runs[other], where), _whole(runs[name], where), where[1])
                    for where in present.values()
                ]
                rows.append((f"{name} − {other}", tuple(cells)))
    return (
        [Sheet("Translation demonstrations against the others", tuple(present), tuple(rows))]
        if rows and present
        else []
    )


def _whole(run: Finished, where: tuple[str, str]) -> Measurement | None:
    """All languages together, or the only one."""
    found = measured(run, *where)
    return found.get(ALL) or (next(iter(found.values())) if len(found) == 1 else None)


def _change(first: Measurement | None, second: Measurement | None, metric: str) -> str:
    if first is None or second is None or first.items.shape != second.items.shape or len(first.items) < 2:
        return "–"
    return change_text(difference(first.statistic, first.items, second.items), metric)


def change_text(found: Difference, metric: str) -> str:
    """Such as `+0.012 [+0.003, +0.020]*`; the star as in the main tables."""
    if np.isnan(found.value):
        return "–"
    digits = len(number_text(1.0, metric).partition(".")[2])
    star = "*" if found.p < SIGNIFICANT else ""
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]{star}"


def over_sparsities(done: Sweep, conditions: Sequence[Condition], metrics: Metrics) -> list[Sheet]:
    """For each metric, every kind by sparsity: the mean over seeds of all languages together; none for one sparsity."""
    sparsities = sorted({each.sparsity for each in conditions if each.sparsity})
    if len(sparsities) < 2:
        return []
    sheets = []
    for title, where in metrics.items():
        values = _values(done, conditions, where)
        plain = [value for condition, value in values if not condition.sparsity]
        if not plain:
            continue
        rows = [("unpruned", tuple(number_text(plain[0], where[1]) for _ in sparsities))]
        for kind in _kinds(conditions):
            cells = []
            for sparsity in sparsities:
                own = [value for each, value in values if (each.kind, each.sparsity) == (kind, sparsity)]
                cells.append(number_text(float(np.mean(own)), where[1]) if own else "–")
            rows.append((kind, tuple(cells)))
        sheets.append(Sheet(f"{title}: by sparsity", tuple(f"{each:g}" for each in sparsities), tuple(rows)))
    return sheets


def over_seeds(done: Sweep, conditions: Sequence[Condition], metrics: Metrics) -> list[Sheet]:
    """For each kind and sparsity, the mean over seeds, with the lowest and the highest; none for one seed."""
    if len({each.seed for each in conditions if each.seed is not None}) < 2:
        return []
    columns = {title: _values(done, conditions, where) for title, where in metrics.items()}
    columns = {title: values for title, values in columns.items() if values}
    rows = []
    for kind in _kinds(conditions):
        for sparsity in dict.fromkeys(
            each.sparsity for each in conditions if each.kind == kind and each.seed is not None
        ):
            cells = []
            for title, values in columns.items():
                own = [value for each, value in values if (each.kind, each.sparsity) == (kind, sparsity)]
                texts = (
                    [number_text(float(value), metrics[title][1]) for value in (np.mean(own), min(own), max(own))]
                    if own
                    else []
                )
                cells.append(f"{texts[0]} ({texts[1]} to {texts[2]})" if texts else "–")
            rows.append((f"{kind} at {sparsity:g}", tuple(cells)))
    seeds = len({each.seed for each in conditions if each.seed is not None})
    return [Sheet(f"Over {seeds} seeds: mean (lowest to highest), all languages", tuple(columns), tuple(rows))]


def _kinds(conditions: Sequence[Condition]) -> list[str]:
    return list(dict.fromkeys(each.kind for each in conditions if each.sparsity))


def _values(done: Sweep, conditions: Sequence[Condition], where: tuple[str, str]) -> list[tuple[Condition, float]]:
    """The mean over languages of every condition that has a result."""
    found: list[tuple[Condition, float]] = []
    for condition, run in zip(conditions, done.runs, strict=True):
        own: Any = [each.value for code, each in measured(run, *where).items() if code != ALL]
        if own and not np.isnan(own).any():
            found.append((condition, float(np.mean(own))))
    return found
