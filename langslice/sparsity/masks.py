"""Which weights become zero, given a score for each: the lowest of each row, of each group, or of the whole matrix.

A partition finds the threshold without sorting; ties go to the earlier input, as a stable sort would have it.
Scores are computed in scores.py. Source: Sun et al. 2023, arXiv 2306.11695, section 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def lowest_of_rows(scores: Scores, count: int) -> Mask:
    """Mark the `count` lowest scores of each row.

    scores   (rows, inputs) float32, finite
    Returns  bool (rows, inputs), True means remove
    Example  lowest_of_rows([[3, 1, 2, 1]], 1) marks the first 1 only
    """
    if count <= 0:
        return np.zeros(scores.shape, dtype=np.bool_)
    if count >= scores.shape[1]:
        return np.ones(scores.shape, dtype=np.bool_)
    threshold = np.partition(scores, count - 1, axis=1)[:, count - 1 : count]  # (rows, 1)
    mask: Mask = scores <= threshold
    surplus = mask.sum(axis=1) - count
    for row in np.flatnonzero(surplus):
        # Several scores equal the threshold: the last ones stay.
        equal = np.flatnonzero(scores[row] == threshold[row])
        mask[row, equal[equal.size - surplus[row] :]] = False
    return mask


def lowest_of_groups(scores: Scores, removed: int, size: int) -> Mask:
    """Mark the `removed` lowest scores in every `size` consecutive inputs of each row.

    scores   (rows, inputs) float32; inputs must be a multiple of `size`
    Example  lowest_of_groups([[3, 1, 2, 1]], 2, 4) marks both 1s
    """
    rows, inputs = scores.shape
    groups = scores.reshape(rows, inputs // size, size)
    mask = np.empty(groups.shape, dtype=np.bool_)
    for place in range(size):
        # The rank of this place: how many of the group go before it.
        before = np.zeros(groups.shape[:2], dtype=np.uint8)
        for other in range(size):
            if other < place:
                before += groups[:, :, other] <= groups[:, :, place]
            elif other > place:
                before += groups[:, :, other] < groups[:, :, place]
        mask[:, :, place] = before < removed
    return mask.reshape(rows, inputs)


def lowest_of_matrix(scores: Scores, count: int) -> Mask:
    """Mark the `count` lowest scores of a whole matrix; of equal ones those that come first.

    scores   (rows, inputs) float32
    """
    return lowest_of_rows(scores.reshape(1, -1), count).reshape(scores.shape)
