"""What a layer, an attention head or a feed-forward neuron is worth: scores, their file, and the choices made by them.

Reading order: table.py (the result), methods.py (which methods there are, and `compute`), magnitude.py (from the weights
alone), passes.py with forward.py and gradients.py (from text), selection.py (what to drop), pictures.py.
"""

from __future__ import annotations

from langslice.scoring.methods import METHODS, Settings, compute
from langslice.scoring.table import Scores, load_scores, model_fingerprint

__all__ = ["METHODS", "Scores", "Settings", "compute", "load_scores", "model_fingerprint"]
