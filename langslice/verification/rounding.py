"""What two models computed from the same samples, compared: how much differs, and how much of that rounding alone makes.

Where it matters, the latter is measured: on the source next to itself, disturbed by one unit in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langslice.verification.check import MAX_EXAMPLES

# Relative to the largest logit: some ulps of the type that the sums are rounded to.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-12}
# How many times the change by one rounding may be found, where every layer rounds; above the second, rounding explains nothing.
_TIMES, _MOST = 4.0, 1e-3


@dataclass(frozen=True)
class Outputs:
    """What one model computes from one sample.

    hidden  float64, hidden states of every layer, end to end
    logits  float64 (1, last tokens, kept vocabulary), None for a model without a head
    dtype   type that the model computes in, as torch spells it
    part    class of the text model inside that computed it, "" for the whole model
    """

    hidden: np.ndarray
    logits: np.ndarray | None
    dtype: str
    part: str = ""

    def is_finite(self) -> bool:
        """Whether no value is infinite or NaN."""
        return bool(np.isfinite(self.hidden).all() and (self.logits is None or np.isfinite(self.logits).all()))


def differences(
    before: Sequence[Outputs], after: Sequence[Outputs], *, ends: bool, again: Sequence[Outputs] = ()
) -> tuple[list[str], float, float]:
    """What differs, and by how much at most in hidden states and in logits.

    ends   the last hidden states alone are compared, and may differ by rounding
    again  of the first model, its embedding disturbed by rounding, where that says how much rounding makes
    """
    wrong: list[str] = []
    worst_hidden = worst_logits = 0.0
    for index, (left, right) in enumerate(zip(before, after, strict=True)):
        of_hidden, of_logits = _allowed(left, again[index] if again else None)
        if left.hidden.shape != right.hidden.shape:
            wrong.append(f"sample {index}: {right.hidden.size} numbers in hidden states, expected {left.hidden.size}")
        elif ends:
            off = _relative_difference(left.hidden, right.hidden)
            worst_hidden = max(worst_hidden, off)
            if not off <= of_hidden:
                wrong.append(f"sample {index}: last hidden states differ by {off:g} of the largest")
        # Equal bit for bit, also where a half-precision model overflows to infinity or NaN.
        elif not np.array_equal(left.hidden, right.hidden, equal_nan=True):
            off = float(np.nanmax(np.abs(left.hidden - right.hidden)))
            worst_hidden = max(worst_hidden, off)
            wrong.append(f"sample {index}: hidden states differ by {off:g}")
        if (left.logits is None) != (right.logits is None):
            wrong.append(f"sample {index}: only one of the two models has logits")
        elif left.logits is not None and right.logits is not None:
            off = _relative_difference(left.logits, right.logits)
            worst_logits = max(worst_logits, off)
            # Not the other way round: NaN is neither more nor less.
            if not off <= of_logits:
                wrong.append(f"sample {index}: logits of kept tokens differ by {off:g} of the largest")
    return wrong[:MAX_EXAMPLES], worst_hidden, worst_logits


def _allowed(left: Outputs, again: Outputs | None) -> tuple[float, float]:
    """Differences of last hidden states and of logits, as shares of the largest value, that are float rounding."""
    tolerance = TOLERANCE[left.dtype]
    if again is None:
        return tolerance, tolerance
    of_logits = tolerance
    if left.logits is not None and again.logits is not None:
        of_logits = _allowance(_relative_difference(left.logits, again.logits), tolerance)
    return _allowance(_relative_difference(left.hidden, again.hidden), tolerance), of_logits


def _relative_difference(left: np.ndarray, right: np.ndarray) -> float:
    """Largest difference as a share of the largest finite value; NaN where only one side is finite."""
    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)) or not np.array_equal(
        left[~finite], right[~finite], equal_nan=True
    ):
        return float("nan")
    if not finite.any():
        return 0.0
    return float(np.abs(left[finite] - right[finite]).max()) / max(float(np.abs(left[finite]).max()), 1.0)


def _allowance(change: float, tolerance: float) -> float:
    """The difference that is float rounding, where one rounding alone makes `change`; both as shares of the largest value."""
    return max(tolerance, _TIMES * change) if change <= _MOST else tolerance


def may_be_rounding(*found: float) -> bool:
    """Whether differences, as shares of the largest value, are so small that rounding may explain them."""
    return all(off <= _TIMES * _MOST for off in found)


def disturbed(load: Callable[[], Any]) -> Callable[[], Any]:
    """What loads the same float32 model with its input embedding changed by a unit in the last place, up or down."""

    def loaded() -> Any:
        import torch

        model = load()
        table = model.get_input_embeddings().weight
        signs = torch.randint(0, 2, table.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        with torch.no_grad():
            table.mul_(1 + (2 * signs.to(table.dtype) - 1) * torch.finfo(table.dtype).eps)
        return model

    return loaded
