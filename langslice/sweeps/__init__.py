"""Sweeps: many slices of many models, each evaluated, from one recipe; finished runs are never run again.

Reading order: recipe.py (the grid that a recipe with lists spans), job.py (one run), scheduler.py (many, in
processes or on Ray), main.py (the flow), summary.py (tables and plots). What may be in a recipe, and
what each part does, is langslice.recipes's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.sweeps.result import Sweep

__all__ = ["Sweep"]
__getattr__ = lazy_names(__name__, {"langslice.sweeps.result": ("Sweep",)})
