"""The importance of layers, attention heads and feed-forward neurons: scores, their file, and the choices made by them.

Reading order: table.py (the result), methods.py (which methods there are, and `compute`), magnitude.py (from the weights
alone), passes.py with forward.py and gradients.py (from text), selection.py (what to drop), pictures.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.scoring.cost import Cost, pruning_costs
    from langslice.scoring.main import score as score
    from langslice.scoring.methods import METHODS as METHODS
    from langslice.scoring.methods import compute
    from langslice.scoring.options import ScoreOptions as ScoreOptions
    from langslice.scoring.options import ScoreSettings
    from langslice.scoring.selection import (
        heads_to_drop,
        language_heads,
        language_heads_to_drop,
        language_neurons,
        language_neurons_to_drop,
        layers_to_drop,
        neurons_to_drop,
        random_control,
    )
    from langslice.scoring.table import Scores, load_scores
    from langslice.scoring.table import model_fingerprint as model_fingerprint

__all__ = [
    "Cost",
    "ScoreSettings",
    "Scores",
    "compute",
    "heads_to_drop",
    "language_heads",
    "language_heads_to_drop",
    "language_neurons",
    "language_neurons_to_drop",
    "layers_to_drop",
    "load_scores",
    "neurons_to_drop",
    "pruning_costs",
    "random_control",
]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.scoring.cost": (
            "Cost",
            "pruning_costs",
        ),
        "langslice.scoring.main": ("score",),
        "langslice.scoring.methods": (
            "METHODS",
            "compute",
        ),
        "langslice.scoring.options": (
            "ScoreOptions",
            "ScoreSettings",
        ),
        "langslice.scoring.selection": (
            "heads_to_drop",
            "language_heads",
            "language_heads_to_drop",
            "language_neurons",
            "language_neurons_to_drop",
            "layers_to_drop",
            "neurons_to_drop",
            "random_control",
        ),
        "langslice.scoring.table": (
            "Scores",
            "load_scores",
            "model_fingerprint",
        ),
    },
)
