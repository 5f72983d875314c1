"""Which dimension of their matrices experts read, proven where no calibration data passes the model and shows it."""

from __future__ import annotations

from collections.abc import Callable

from langslice.demonstrations.tokens import Prompt
from langslice.errors import CheckpointError
from langslice.sparsity.block_pass import walk
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.experts import whole_of
from langslice.sparsity.products import LEAVE_EXPERTS
from langslice.sparsity.skeleton import Skeleton

_TOKENS = 16  # any will do: one token that reaches one expert shows how the matrices of all lie


def prove_directions(skeleton: Skeleton, chosen: Callable[[Block], tuple[Linear, ...]]) -> None:
    """Run a few arbitrary tokens through a model whose chosen layers include experts that lie in one parameter.

    Raises   CheckpointError where a product is another than expected, or no token reaches a block with such experts
    """
    waiting = {block.name: linears for block in skeleton.blocks if (linears := _stacked(chosen(block)))}
    if not waiting:
        return
    ids = tuple(range(_TOKENS))
    prompt = Prompt("keep", 0, ids, ids[:2] if skeleton.is_encoder_decoder else None)
    for visit in walk(skeleton, [prompt], watched=lambda block: waiting.get(block.name, ())):
        waiting.pop(visit.block.name, None)
    if waiting:
        raise CheckpointError(
            f"text does not reach {next(iter(waiting))}, so that what its experts read cannot be checked", LEAVE_EXPERTS
        )


def _stacked(linears: tuple[Linear, ...]) -> tuple[Linear, ...]:
    """Those whose direction is not given by a module of their own."""
    return tuple(
        linear for linear in linears if linear.first is not None and whole_of(linear.entry.name)[1] is not None
    )
