"""How much each weight matters: every score that a mask can be made from.

    wanda      |W| * norm of its input over the calibration data        Sun et al. 2023, arXiv 2306.11695, equation 1
    avoiding   |W| * keep norm^2 / avoid norm                           Kim et al. 2024, arXiv 2409.16911, section 5
    magnitude  |W|
    random     the same for any weights: a control

The input statistics `v` are means over calibration prompts of the sum over tokens of x^2 (input_statistics.py).
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


def input_weights(keep: Vector, avoid: Vector | None = None, epsilon: float = 0.0) -> Vector:
    """What the magnitude of each weight is multiplied with, by input.

    keep     (inputs,) mean squared norm over the calibration data to serve
    avoid    the same over those that count against a weight
    epsilon  added to `avoid`
    Returns  (inputs,) float32: sqrt(keep), or sqrt(keep * keep / (avoid + epsilon)); never NaN, at most the largest float

    Computed in float64, since the square of a statistic may overflow float32.
    """
    squared = keep.astype(np.float64)
    if avoid is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            squared = squared * squared / (avoid.astype(np.float64) + epsilon)
        # An input that neither set uses, with epsilon 0.
        squared = np.nan_to_num(squared, nan=0.0, posinf=np.finfo(np.float64).max)
    largest = float(np.finfo(np.float32).max)
    return np.minimum(np.sqrt(squared), largest).astype(np.float32)


def weight_scores(weight: npt.NDArray[np.float32], weights_of_inputs: Vector) -> npt.NDArray[np.float32]:
    """|W| times a factor for each input.

    weight             (rows, inputs)
    weights_of_inputs  (inputs,), see `input_weights`
    """
    scores = np.abs(weight)
    with np.errstate(over="ignore"):
        scores *= weights_of_inputs
    return scores


def random_scores(name: str, rows: slice, inputs: int, seed: int) -> npt.NDArray[np.float32]:
    """Scores that depend on the tensor's name, the row and the seed only, so that windows of rows do not matter.

    Returns  (rows, inputs) float32, uniform in [0, 1)
    """
    found = np.empty((rows.stop - rows.start, inputs), dtype=np.float32)
    key = zlib.crc32(name.encode())
    for position, row in enumerate(range(rows.start, rows.stop)):
        found[position] = np.random.default_rng((seed, key, row)).random(inputs, dtype=np.float32)
    return found
