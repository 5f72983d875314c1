"""From options to a plan: which tokens, layers, heads, neurons and weights stay, and what that makes of every file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.planning.options import PlanOptions
    from langslice.planning.plan import TensorPlan, save_plan

__all__ = ["PlanOptions", "TensorPlan", "save_plan"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.planning.options": ("PlanOptions",),
        "langslice.planning.plan": (
            "TensorPlan",
            "save_plan",
        ),
    },
)
