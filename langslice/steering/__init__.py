"""Steering: a small adapter that makes a causal model go on in one language, added to its hidden states while it generates.

Reading order: main.py (the flow), differences.py (mean hidden states by language), neurons.py (language neurons), adapter.py (the
file), hooks.py (`apply_steering`), folding.py (the vectors inside a checkpoint's biases).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.steering.adapter import Steering, load_steering
    from langslice.steering.hooks import apply_steering
    from langslice.steering.main import fold_steering as fold_steering
    from langslice.steering.main import make_steering as make_steering
    from langslice.steering.options import SteeringOptions as SteeringOptions

__all__ = ["Steering", "apply_steering", "load_steering"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.steering.adapter": ("Steering", "load_steering"),
        "langslice.steering.hooks": ("apply_steering",),
        "langslice.steering.main": ("fold_steering", "make_steering"),
        "langslice.steering.options": ("SteeringOptions",),
    },
)
