"""Evaluation of a model and its slice side by side: quality by language, speed and size.

Reading order: main.py (the flow), measurement.py and statistics.py (what a score is, and how sure), data_sets.py and
choice_tasks.py (data and tasks), then one module for each kind of task. Nothing here changes a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.evaluation.choice_tasks import ChoiceTask, load_task
    from langslice.evaluation.options import EvaluateOptions
    from langslice.evaluation.rankc import random_consistency, rank_consistency
    from langslice.evaluation.results import Evaluation, Score, Value

__all__ = [
    "ChoiceTask",
    "EvaluateOptions",
    "Evaluation",
    "Score",
    "Value",
    "load_task",
    "random_consistency",
    "rank_consistency",
]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.evaluation.choice_tasks": (
            "ChoiceTask",
            "load_task",
        ),
        "langslice.evaluation.options": ("EvaluateOptions",),
        "langslice.evaluation.rankc": (
            "random_consistency",
            "rank_consistency",
        ),
        "langslice.evaluation.results": (
            "Evaluation",
            "Score",
            "Value",
        ),
    },
)
