"""What was measured, item by item, so that scores, intervals and paired tests can all be computed from it later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.statistics import STATISTICS


@dataclass(frozen=True)
class Measurement:
    """One metric of one model on one task and language.

    task, language  such as `xnli` and `ko`; a pair of languages is written `ko-en`
    metric          such as `accuracy (paper)`
    statistic       name in STATISTICS that turns items into the score
    items           (n, k) float64, one row per item; what the columns are is the statistic's to say
    better          `higher` or `lower`
    details         what else a reader needs: chance, signature of sacreBLEU, how many items were truncated
    """

    task: str
    language: str
    metric: str
    statistic: str
    items: np.ndarray
    better: str = "higher"
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a measurement of."""
        return self.task, self.language, self.metric

    @property
    def value(self) -> float:
        """The score over all items."""
        return float(STATISTICS[self.statistic](self.items[None])[0])

    def to_json(self) -> dict[str, Any]:
        """As plain data, items included."""
        return {
            "task": self.task,
            "language": self.language,
            "metric": self.metric,
            "statistic": self.statistic,
            "better": self.better,
            "details": dict(self.details),
            "items": self.items.tolist(),
        }


def mean_of(task: str, language: str, metric: str, values: Any, **details: Any) -> Measurement:
    """A metric that is the plain mean of (n,) values, the higher the better."""
    return Measurement(task, language, metric, "mean", np.asarray(values, dtype=np.float64)[:, None], details=details)


def measurement_from_json(data: Mapping[str, Any]) -> Measurement:
    """Build a measurement again from `to_json`."""
    if data.get("statistic") not in STATISTICS:
        raise TaskError(f"unknown statistic {data.get('statistic')!r} in a saved measurement", "run it again")
    items = np.asarray(data["items"], dtype=np.float64)
    return Measurement(
        data["task"], data["language"], data["metric"], data["statistic"], items, data["better"], data["details"]
    )
