"""SparseGPT: remove weights one column after another, and let later ones compensate for the error.

Source: Frantar and Alistarh 2023, arXiv 2301.00774, algorithm 1; masks are chosen for 128 columns at a time, over all rows
together when unstructured, and the Hessian is damped by 1% of its mean diagonal, as the paper does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from langslice.errors import CheckpointError
from langslice.sparsity.masks import lowest_of_groups, lowest_of_matrix

BLOCK_COLUMNS = 128
DAMPING = 0.01


def prune_by_reconstruction(
    weight: Any, products: Any, share: float, group: tuple[int, int] | None, name: str = "a linear layer"
) -> None:
    """Zero weights of a linear layer and update the others, in place.

    weight    (outputs, inputs) float32 tensor
    products  (inputs, inputs) float32 tensor, a positive multiple of the mean of x^T x; overwritten
    share     of each 128 columns to remove
    group     (N, M) of an N:M pattern instead
    name      said in errors
    Raises    CheckpointError when the Hessian cannot be inverted
    """
    import torch

    dead = products.diagonal() == 0
    products.diagonal()[dead] = 1.0
    inverse = _upper_inverse(products, name)
    columns = weight.shape[1]
    width = BLOCK_COLUMNS if group is None else max(BLOCK_COLUMNS // group[1], 1) * group[1]
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        part = weight[:, start:stop].clone()
        factors = inverse[start:stop, start:stop]
        # An input that is always zero may lose its weights first: its score is 0.
        scores = (part / factors.diagonal()).square()
        scores[:, dead[start:stop]] = 0.0
        mask = _mask(scores, share, group)
        errors = torch.empty_like(part)
        for column in range(stop - start):
            kept = part[:, column].masked_fill(mask[:, column], 0.0)
            errors[:, column] = (part[:, column] - kept) / factors[column, column]
            part[:, column] = kept
            part[:, column + 1 :] -= errors[:, column : column + 1] * factors[column : column + 1, column + 1 :]
        weight[:, start:stop] = part
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]


def _mask(scores: Any, share: float, group: tuple[int, int] | None) -> Any:
    import torch

    values = np.ascontiguousarray(scores.numpy())
    found = lowest_of_matrix(values, int(values.size * share)) if group is None else lowest_of_groups(values, *group)
    return torch.from_numpy(found)


def _upper_inverse(products: Any, name: str) -> Any:
    """Upper Cholesky factor of the inverse of the damped Hessian."""
    import torch

    diagonal = products.diagonal()
    diagonal += DAMPING * diagonal.mean()
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(products))
        return torch.linalg.cholesky(inverse, upper=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"the inputs of {name} cannot be inverted for SparseGPT\n  {error}",
            "use more calibration data, or --weights-by wanda",
        ) from None
