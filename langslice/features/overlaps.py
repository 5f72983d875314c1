"""Compare which dimensions are large in two conditions, and find those that are large in one alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.features.magnitudes import Magnitudes

Marks = npt.NDArray[np.bool_]


def largest(values: npt.NDArray[np.float64], share: float) -> Marks:
    """Mark the largest dimensions of each layer.

    values   (layers, hidden)
    share    of the dimensions, rounded down
    Returns  bool (layers, hidden)
    Example  largest([[1, 5, 3, 2]], 0.5) marks the second and the third
    """
    return _first(np.argsort(-values, axis=-1, kind="stable"), share)


def smallest(values: npt.NDArray[np.float64], share: float) -> Marks:
    """Mark the smallest dimensions of each layer; see `largest`.

    values   (..., dimensions) float64
    Returns  (..., dimensions) bool
    """
    return _first(np.argsort(values, axis=-1, kind="stable"), share)


def overlap(magnitudes: Magnitudes, share: float = 0.4) -> npt.NDArray[np.float64]:
    """Share of the dimensions that are among the largest in one condition and among the smallest in another.

    share    of the dimensions that count as largest and as smallest; 0.4 in the paper's code
    Returns  (conditions A, conditions B, layers): |largest(A) and smallest(B)| / hidden
    """
    _check_share(share)
    large = np.stack([largest(values, share) for values in magnitudes.values])
    small = np.stack([smallest(values, share) for values in magnitudes.values])
    found: npt.NDArray[np.float64] = (large[:, None] & small[None]).mean(axis=-1)
    return found


def particular_dimensions(magnitudes: Magnitudes, wanted: str, others: Sequence[str], share: float = 0.4) -> Marks:
    """Mark the dimensions that are among the largest in one condition and among the smallest in all others.

    wanted   the condition, such as translation
    others   the conditions to tell it from, such as each language alone
    Returns  bool (layers, hidden)
    """
    _check_share(share)
    if not others:
        raise PlanError("no condition to compare with was given", hint="pass --against FILE")
    marks = largest(magnitudes.of(wanted), share)
    for other in others:
        marks = marks & smallest(magnitudes.of(other), share)
    return marks


def standing_out(magnitudes: Magnitudes, wanted: str, others: Sequence[str], count: int, share: float = 0.4) -> Marks:
    """Mark, among the largest dimensions of a condition, the `count` of each layer that stand out most from the others.

    A dimension stands out by its `prominence`. Where no dimension is large in one condition and small in all others, as
    in small models, these are the nearest there is.
    Returns  bool (layers, hidden)
    """
    _check_share(share)
    values = np.where(largest(magnitudes.of(wanted), share), prominence(magnitudes, wanted, others), -1.0)
    marks = np.zeros(values.shape, dtype=np.bool_)
    np.put_along_axis(marks, np.argsort(-values, axis=-1, kind="stable")[:, :count], True, axis=-1)
    return marks & (values >= 0)


def prominence(magnitudes: Magnitudes, wanted: str, others: Sequence[str]) -> npt.NDArray[np.float64]:
    """How many times larger each dimension is in one condition than in the others, at most.

    Magnitudes are taken relative to the norm of their layer, since they grow with the length of the demonstrations.
    Returns  (layers, hidden)
    """
    if not others:
        raise PlanError("no condition to compare with was given", hint="pass --against FILE")
    relative = magnitudes.values / np.maximum(np.linalg.norm(magnitudes.values, axis=-1, keepdims=True), 1e-300)
    own = relative[magnitudes.conditions.index(wanted)]
    elsewhere = np.max([relative[magnitudes.conditions.index(other)] for other in others], axis=0)
    found: npt.NDArray[np.float64] = own / np.maximum(elsewhere, 1e-300)
    return found


def _first(order: npt.NDArray[np.int64], share: float) -> Marks:
    marks = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(marks, order[..., : int(order.shape[-1] * share)], True, axis=-1)
    return marks


def _check_share(share: float) -> None:
    if not 0 < share <= 0.5:
        raise PlanError(
            f"the share of dimensions that count as large must lie between 0 and 0.5, found {share}",
            hint="0.4 is the paper's; beyond 0.5 a dimension could be both large and small",
        )
