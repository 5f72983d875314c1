"""Scores of a model, or of a model and its slice side by side, as data: what a table shows and a JSON file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.statistics import Difference, Interval, difference, interval
from langslice.files.atomic_output import staging_file
from langslice.version import __version__

FORMAT: Final = "langslice-evaluation/1"


@dataclass(frozen=True)
class Value:
    """A score of one model: over n items, with the bounds of its bootstrap interval (None where n is 1)."""

    value: float
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Score:
    """One metric of one task in one language, of both models.

    better      `higher` or `lower`
    slice       None when only one model was evaluated
    difference  slice minus original by the paired bootstrap; None with one model, or with one item
    details     of each model, by role
    """

    task: str
    language: str
    metric: str
    better: str
    original: Value
    slice: Value | None
    difference: Difference | None
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` found.

    models    role (`original`, `slice`) -> name, folder, bytes, parameters, vocabulary
    settings  what was asked for
    notes     role -> what a reader must know of how the model was run
    """

    models: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    scores: tuple[Score, ...]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data; not-a-number, where a score has nothing to count, is null."""
        document = {
            "format": FORMAT,
            "langslice": __version__,
            "models": {role: dict(model) for role, model in self.models.items()},
            "settings": dict(self.settings),
            "scores": [asdict(score) for score in self.scores],
            "notes": {role: list(lines) for role, lines in self.notes.items()},
        }
        plain: dict[str, Any] = _without_nan(document)
        return plain

    def save(self, path: str | Path) -> None:
        """Write the JSON file."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
        with staging_file(Path(path)) as partial:
            partial.write_text(text, encoding="utf-8")


def compare(
    original: Sequence[Measurement], sliced: Sequence[Measurement] | None, *, resamples: int, seed: int
) -> tuple[Score, ...]:
    """Scores of the original and, item by item next to it, of the slice.

    Raises  TaskError when the two were not measured on the same items
    """
    if sliced is None:
        return tuple(_score(found, None, resamples, seed) for found in original)
    by_key = {found.key: found for found in sliced}
    if [found.key for found in original] != [found.key for found in sliced]:
        odd = sorted({found.key for found in original} ^ set(by_key))
        raise TaskError(f"original and slice were measured on different tasks: {odd[:3]}", "evaluate both again")
    return tuple(_score(found, by_key[found.key], resamples, seed) for found in original)


def _score(first: Measurement, second: Measurement | None, resamples: int, seed: int) -> Score:
    if second is not None and first.items.shape != second.items.shape:
        raise TaskError(
            f"{' '.join(first.key)}: original has {len(first.items)} items, the slice {len(second.items)}",
            "evaluate both again on the same data",
        )
    found: Difference | None = None
    if second is not None and len(first.items) > 1:
        found = difference(first.statistic, first.items, second.items, resamples=resamples, seed=seed)
    details = {"original": first.details, **({} if second is None else {"slice": second.details})}
    return Score(
        *first.key, first.better, _value(first, resamples, seed),
        None if second is None else _value(second, resamples, seed), found, details,
    )  # fmt: skip


def _value(found: Measurement, resamples: int, seed: int) -> Value:
    if len(found.items) == 1:
        return Value(found.value, 1, None, None)
    bounds: Interval = interval(found.statistic, found.items, resamples=resamples, seed=seed)
    return Value(found.value, len(found.items), bounds.low, bounds.high)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and isnan(value) else value


def evaluation_from_json(document: Mapping[str, Any]) -> Evaluation:
    """An evaluation from what `Evaluation.to_json` gives; a score that was not a number is one again.

    Raises  TaskError for another format
    """
    if document.get("format") != FORMAT:
        raise TaskError(f"expected format {FORMAT}, found {document.get('format')}", "evaluate again")

    def number(value: float | None) -> float:
        return float("nan") if value is None else value

    scores = []
    for entry in document["scores"]:
        values = {
            role: None if entry[role] is None else Value(**{**entry[role], "value": number(entry[role]["value"])})
            for role in ("original", "slice")
        }
        found = entry["difference"]
        changed = None if found is None else Difference(**{name: number(value) for name, value in found.items()})
        scores.append(Score(**{**entry, **values, "difference": changed}))
    return Evaluation(document["models"], document["settings"], tuple(scores), document["notes"])
