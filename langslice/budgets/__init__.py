"""A slice that fits a budget: what each axis costs this model, which combination costs least, and the slice of it.

Reading order: limits.py (the budget), cut.py (a combination), narrowing.py (hidden dimensions), parts.py (what can go, and what
is left of the size), part_scores.py (which of it first), evaluator.py (a combination, evaluated in memory), points.py (what it
loses, remembered), cluster_points.py (the same on a cluster), latency.py (how long a model reads), costs.py (each axis alone, and
what that predicts), search.py (which are tried), main.py (the flow), table.py and picture.py (what people see).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.budgets.cut import Cut
    from langslice.budgets.main import Fit
    from langslice.budgets.options import FitOptions
    from langslice.budgets.search import Trial

__all__ = ["Cut", "Fit", "FitOptions", "Trial"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.budgets.cut": ("Cut",),
        "langslice.budgets.main": ("Fit",),
        "langslice.budgets.options": ("FitOptions",),
        "langslice.budgets.search": ("Trial",),
    },
)
