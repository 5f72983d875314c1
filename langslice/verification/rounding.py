"""How much rounding alone changes what a model computes: the source next to itself, disturbed by one unit in the last place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# How many times the change by one rounding may be found, where every layer rounds.
TIMES = 4.0
# Above this, rounding explains nothing.
MOST = 1e-3


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


def allowance(change: float, tolerance: float) -> float:
    """The difference that is float rounding, where one rounding alone makes `change`; both as shares of the largest value."""
    return max(tolerance, TIMES * change) if change <= MOST else tolerance
