"""Language neurons to steer by: the target's own, to be scaled, or those of the other languages alone, to be zeroed.

LAPE, Tang et al. 2024, arXiv 2402.16438.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.scoring import language_neurons
from langslice.scoring.batches import Batch
from langslice.scoring.forward import activation_probability
from langslice.scoring.model_runs import Running
from langslice.scoring.table import Scores, averaged
from langslice.steering.differences import STACK


def steered_neurons(
    running: Running, batches: Mapping[str, Sequence[Batch]], target: str, method: str
) -> dict[int, npt.NDArray[np.float32]]:
    """Neurons whose activations are multiplied by the strength.

    batches  language -> lines as the model reads them
    method   "scale": those of the target; "zero": those of the other languages that are not the target's
    Returns  layer -> (neurons,) float32, 1 for these neurons and 0 for the others; layers without any are left out
    Raises   PlanError when there are none, and for layers of experts
    """
    sizes = running.anatomy.neurons[STACK]
    experts = sorted(set(sizes) - set(running.sites.gates.get(STACK, {})))
    if experts:
        raise PlanError(
            f"layer {experts[0]} has experts, and language neurons are those of layers without", "steer by diffmean"
        )
    measured = {language: [activation_probability(running, given, 0)] for language, given in batches.items()}
    scores = Scores("neurons", "lape", **averaged(measured, overall=False), model="", fingerprint="")
    own = language_neurons(scores, running.anatomy)
    marks = {layer: np.zeros(size, np.float32) for layer, size in sizes.items()}
    others = [language for language in own if language != target]
    for language in [target] if method == "scale" else others:
        for layer, neurons in own[language].get(STACK, {}).items():
            marks[layer][list(neurons)] = 1
    if method == "zero":
        for layer, neurons in own[target].get(STACK, {}).items():
            marks[layer][list(neurons)] = 0
    marks = {layer: row for layer, row in marks.items() if row.any()}
    if not marks:
        whose = f"`{target}`" if method == "scale" else f"{', '.join(others)} alone"
        raise PlanError(
            f"no neuron is particular to {whose}", "give more text with --calibration, or steer by diffmean"
        )
    return marks
