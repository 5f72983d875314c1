"""The importance of layers, attention heads and feed-forward neurons: scores, their file, and the choices made by them.

Reading order: table.py (the result), methods.py (which methods there are, and `compute`), magnitude.py (from the weights
alone), passes.py with forward.py and gradients.py (from text), selection.py (what to drop), pictures.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.scoring.main import score
    from langslice.scoring.methods import METHODS, compute
    from langslice.scoring.options import ScoreOptions, ScoreSettings
    from langslice.scoring.table import Scores, load_scores, model_fingerprint

__all__ = [
    "METHODS",
    "ScoreOptions",
    "ScoreSettings",
    "Scores",
    "compute",
    "load_scores",
    "model_fingerprint",
    "score",
]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.scoring.main": ("score",),
        "langslice.scoring.methods": (
            "METHODS",
            "compute",
        ),
        "langslice.scoring.options": (
            "ScoreOptions",
            "ScoreSettings",
        ),
        "langslice.scoring.table": (
            "Scores",
            "load_scores",
            "model_fingerprint",
        ),
    },
)
