"""What reaches each linear layer of a block: sums of squares by input, and their products where a score needs them.

Everything is accumulated in float32 over real tokens only; prompts are never padded, unless the user asks for the
reference's behaviour. Layers that read the same tensor (query, key and value) share one computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CheckpointError
from langslice.sparsity.skeleton import Block, Linear

Hook = Callable[[Any, tuple[Any, ...]], None]


class LastInput(Exception):
    """The last input of a block has been seen; what would follow is not needed."""


class InputStatistics:
    """What linear layers of one block read, by condition and layer.

    with_products  also sum x^T x, (inputs, inputs), which SparseGPT needs
    """

    def __init__(self, block: Block, linears: Sequence[Linear], *, with_products: bool = False) -> None:
        self._block = block
        self._linears = {id(linear.module): linear for linear in linears}
        self._with_products = with_products
        self._squares: dict[tuple[str, str], Any] = {}
        self._products: dict[tuple[str, str], Any] = {}
        self._product_owner: dict[str, str] = {}
        self._prompts: dict[str, int] = {}
        self._order: list[int] = []
        self._last: int | None = None
        self._condition = ""
        self._seen: Any = None
        self._of_seen: Any = None
        self._owner = ""

    def watch(self, condition: str, run: Callable[[], object]) -> None:
        """Count one prompt: `run` passes it through the block; from the second on it stops at the last layer's input."""
        self._condition = condition
        self._prompts[condition] = self._prompts.get(condition, 0) + 1
        self._order = []
        handles = [linear.module.register_forward_pre_hook(self._hook) for linear in self._linears.values()]
        try:
            run()
            self._last = self._order[-1] if len(set(self._order)) == len(self._order) and self._order else None
            self._check_all_reached()
        except LastInput:
            pass
        finally:
            for handle in handles:
                handle.remove()
            self._seen = self._of_seen = None

    def mean_squares(self, condition: str, linear: Linear) -> npt.NDArray[np.float32]:
        """(inputs,) float32: mean over prompts of the sum over tokens of x^2.

        Raises  CheckpointError when a prompt made it infinite or NaN
        """
        total = self._squares[condition, linear.name]
        found: npt.NDArray[np.float32] = (total / self._prompts[condition]).numpy()
        if not np.isfinite(found).all():
            raise CheckpointError(
                f"infinite or NaN activation at the input of {linear.name}\n  demonstrations: {condition}\n"
                f"  {int((~np.isfinite(found)).sum())} of {found.size} inputs",
                "the model overflows on this text, or its weights are damaged",
            )
        return found

    def products(self, condition: str, linear: Linear) -> Any:
        """(inputs, inputs) float32 tensor: mean over prompts of x^T x."""
        return self._products[condition, self._product_owner[linear.name]] / self._prompts[condition]

    def _hook(self, module: Any, given: tuple[Any, ...]) -> None:
        linear = self._linears[id(module)]
        self._order.append(id(module))
        rows = given[0]
        if rows is not self._seen:
            flat = rows.reshape(-1, rows.shape[-1]).float()
            self._seen, self._of_seen = rows, (flat * flat).sum(dim=0)
            self._owner = linear.name
            if self._with_products:
                self._add(self._products, linear.name, flat.T @ flat)
        self._product_owner[linear.name] = self._owner
        self._add(self._squares, linear.name, self._of_seen)
        if self._last == id(module):
            raise LastInput

    def _add(self, sums: dict[tuple[str, str], Any], name: str, value: Any) -> None:
        key = (self._condition, name)
        if key in sums:
            sums[key] += value
        else:
            sums[key] = value.clone()

    def _check_all_reached(self) -> None:
        missing = [linear.name for key, linear in self._linears.items() if key not in self._order]
        if missing:
            raise CheckpointError(
                f"no activation reached {missing[0]}\n  {len(missing)} of {len(self._linears)} linear layers of {self._block.name}",
                'leave such layers out with --linears "!PATTERN"',
            )
