"""What reaches each linear layer of a block: sums of squares by input, and their products where a score needs them.

Where languages are compared, also for how many tokens each input is active: its absolute value above the mean of the token's.

Each prompt is summed in float32 over real tokens only; prompts are never padded, unless the user asks for the reference's
behaviour. Prompts are added in float64, in their order, so that it does not matter on how many machines they were summed.
Layers that read the same tensor (query, key and value) share one computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CheckpointError
from langslice.sparsity.blocks import Block, Linear, is_of_expert
from langslice.sparsity.products import watching

PromptSums = dict[str, "npt.NDArray[np.float32]"]
"""Linear layer -> (inputs,) sum over one prompt's tokens of x^2; with activity (3, inputs): that, the number of tokens for
which the input is active, and the number of tokens."""

KEEP, AVOID = "keep", "avoid"


class LastInput(Exception):
    """The last input of a block has been seen; what would follow is not needed."""


class InputStatistics:
    """What linear layers of one block read, by condition and layer.

    with_products  also sum x^T x, (inputs, inputs), which SparseGPT needs
    with_activity  also count the tokens for which an input is active, which languages are compared by
    keep_each      remember the sums of every prompt in `each`, for another machine to add
    """

    def __init__(
        self,
        block: Block,
        linears: Sequence[Linear],
        *,
        with_products: bool = False,
        with_activity: bool = False,
        keep_each: bool = False,
    ) -> None:
        self._block = block
        self.each: list[PromptSums] | None = [] if keep_each else None
        self._current: dict[str, Any] = {}
        self._linears = {id(linear.module): linear for linear in linears}
        self._with_products, self._with_activity = with_products, with_activity
        self._squares: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
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
        self._current = {}
        self._order = []
        handles = [linear.module.register_forward_pre_hook(self._hook) for linear in self._linears.values()]
        try:
            with watching(self._linears.values(), self._hook):
                run()
            # Which expert comes last depends on the prompt.
            once = len(set(self._order)) == len(self._order) and not any(one.routed for one in self._linears.values())
            self._last = self._order[-1] if once and self._order else None
            self._check_all_reached()
        except LastInput:
            pass
        finally:
            for handle in handles:
                handle.remove()
            self._seen = self._of_seen = None
        sums = {name: value.numpy() for name, value in self._current.items()}
        if self.each is not None:
            self.each.append(sums)
        self.add(condition, sums)

    def add(self, condition: str, sums: PromptSums) -> None:
        """Count one prompt that was summed before; prompts are added in their order.

        sums  linear layer -> (inputs,) float32, sum of squares over the tokens of the prompt; (3, inputs) with activity
        """
        self._prompts[condition] = self._prompts.get(condition, 0) + 1
        for name, value in sums.items():
            key = (condition, name)
            self._squares[key] = self._squares[key] + value if key in self._squares else value.astype(np.float64)

    def mean_squares(self, condition: str, linear: Linear) -> npt.NDArray[np.float32]:
        """(inputs,) float32: mean over prompts of the sum over tokens of x^2.

        Zeros for an expert that no token was sent to.
        Raises  CheckpointError when a prompt made it infinite or NaN
        """
        if linear.routed and (condition, linear.name) not in self._squares:
            return np.zeros(linear.inputs, dtype=np.float32)
        total = self._squares[condition, linear.name]
        total = total[0] if self._with_activity else total
        with np.errstate(over="ignore"):  # what is infinite in float32 is refused below
            found: npt.NDArray[np.float32] = (total / self._prompts[condition]).astype(np.float32)
        if not np.isfinite(found).all():
            raise CheckpointError(
                f"infinite or NaN activation at the input of {linear.name}\n  calibration data: {condition}\n"
                f"  {int((~np.isfinite(found)).sum())} of {found.size} inputs",
                "the model overflows on this text, or its weights are damaged",
            )
        return found

    def reached(self, condition: str, linear: Linear) -> bool:
        """Whether prompts say anything of a layer: not of an expert that no token was sent to."""
        return not linear.routed or bool(self.mean_squares(condition, linear).any())

    def kept(self) -> tuple[str, ...]:
        """Conditions whose inputs count as important: "keep", or one for each language."""
        return tuple(condition for condition in self._prompts if condition != AVOID)

    def activity(self, condition: str, linear: Linear) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Twice (inputs,): root mean square over tokens, and share of tokens for which the input is active; both 0 without tokens.

        Raises  CheckpointError when a prompt made it infinite or NaN
        """
        self.mean_squares(condition, linear)  # names the layer where an input is infinite or NaN
        if (condition, linear.name) not in self._squares:
            return np.zeros(linear.inputs), np.zeros(linear.inputs)
        squares, active, tokens = self._squares[condition, linear.name]
        return np.sqrt(squares / tokens), active / tokens

    def products(self, condition: str, linear: Linear) -> Any:
        """(inputs, inputs) float32 tensor: mean over prompts of x^T x."""
        return self._products[condition, self._product_owner[linear.name]] / self._prompts[condition]

    def _hook(self, module: Any, given: tuple[Any, ...]) -> None:
        linear = self._linears[id(module)]
        self._order.append(id(module))
        rows = given[0]
        if rows is not self._seen:
            flat = rows.reshape(-1, rows.shape[-1]).float()
            self._seen, self._of_seen = rows, _with_activity(flat) if self._with_activity else (flat * flat).sum(dim=0)
            self._owner = linear.name
            if self._with_products:
                self._add_product(linear.name, flat.T @ flat)
        self._product_owner[linear.name] = self._owner
        before = self._current.get(linear.name)
        self._current[linear.name] = self._of_seen if before is None else before + self._of_seen
        if self._last == id(module):
            raise LastInput

    def _add_product(self, name: str, value: Any) -> None:
        key = (self._condition, name)
        if key in self._products:
            self._products[key] += value
        else:
            self._products[key] = value

    def _check_all_reached(self) -> None:
        """Every layer is reached by every prompt; of all experts one at least, with each of its layers."""
        found = {linear.name for key, linear in self._linears.items() if key in self._order}
        kinds = {name.rpartition(".")[2] for name in found if is_of_expert(name)}
        routed = sum(linear.routed for linear in self._linears.values())
        some = routed < sum(linear.routed for linear in self._block.linears)  # others may have been reached
        missing = [
            linear.name
            for linear in self._linears.values()
            if linear.name not in found and not (linear.routed and (some or linear.name.rpartition(".")[2] in kinds))
        ]
        if missing:
            raise CheckpointError(
                f"no activation reached {missing[0]}\n  {len(missing)} of {len(self._linears)} linear layers of {self._block.name}",
                'leave such layers out with --linears "!PATTERN"',
            )


def _with_activity(flat: Any) -> Any:
    """(tokens, inputs) -> (3, inputs): sum of squares, tokens for which the input is active, tokens."""
    import torch

    size = flat.abs()
    active = (size > size.mean(dim=1, keepdim=True)).sum(dim=0)
    return torch.stack([(flat * flat).sum(dim=0), active.float(), torch.full(active.shape, float(len(flat)))])
