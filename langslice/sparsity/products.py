"""What experts read whose matrices lie in one parameter: seen at the products that the unmodified class makes with them.

A product is told by where its matrix begins in memory. Which dimension it sums over must be the one that the layer was taken to
read, and a class that passes every token through every expert, to weigh their outputs afterwards, is refused: what is sent to
an expert could not be told from what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from langslice.errors import CheckpointError
from langslice.sparsity.blocks import Linear

Hook = Callable[[Any, tuple[Any, ...]], None]
LEAVE_EXPERTS = 'leave them as they are with --linears "!*.experts.*"'


def watching(linears: Iterable[Linear], hook: Hook) -> AbstractContextManager[Any]:
    """Call the hook with a layer's module and its input for every product with an expert's matrix.

    linears   loaded; those that are modules of the unmodified class are left to their own hooks
    Raises    CheckpointError, as the model runs, for a product that is not what the layer was taken for
    """
    from torch.overrides import TorchFunctionMode

    places: dict[int, list[Linear]] = {}
    for linear in linears:
        if linear.first is not None:
            weight = linear.module.weight
            begin = weight.data_ptr() - linear.first * linear.inputs * weight.element_size()
            places.setdefault(begin, []).append(linear)
    if not places:
        return nullcontext()

    class Watching(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for rows, weight, dim in _operands(function, args):
                found = [
                    (linear, read, matrix)
                    for read, matrix in _by_expert(rows, weight)
                    for linear in places.get(matrix.data_ptr(), ())
                ]
                if found and weight.ndim == 3:
                    _refuse_all_tokens(found[0][0], rows)
                for linear, read, matrix in found:
                    _check(linear, matrix, dim)
                    hook(linear.module, (read,))
            return function(*args, **(kwargs or {}))

    return Watching()


def _operands(function: Any, args: Sequence[Any]) -> Iterator[tuple[Any, Any, int]]:
    """What a product may read, the matrix it may be read with, and the matrix's dimension that is summed over."""
    import torch

    if function is torch.nn.functional.linear and len(args) > 1:
        yield args[0], args[1], -1
        return
    tensor = torch.Tensor
    plain = (torch.matmul, tensor.matmul, tensor.__matmul__, torch.mm, tensor.mm, torch.bmm, tensor.bmm)
    added = (torch.addmm, tensor.addmm, torch.baddbmm, tensor.baddbmm)
    pair = args[:2] if function in plain else args[1:3] if function in added else ()
    if len(pair) == 2 and min(one.ndim for one in pair) > 1:
        yield pair[0], pair[1], -2
        yield pair[1].transpose(-1, -2), pair[0], -1


def _by_expert(rows: Any, weight: Any) -> Iterator[tuple[Any, Any]]:
    """What each matrix of a product reads: one, or those of all experts at once."""
    if weight.ndim == 2:
        yield rows, weight
    elif weight.ndim == 3:
        for number, matrix in enumerate(weight):
            yield (rows[number] if rows.ndim == 3 else rows), matrix


def _check(linear: Linear, matrix: Any, dim: int) -> None:
    expected = linear.rows()  # (outputs, inputs)
    if matrix.shape[dim] != linear.inputs or matrix.stride(dim) != expected.stride(1):
        raise CheckpointError(
            f"{linear.name} is multiplied along another of its dimensions than was expected\n"
            f"  {linear.entry.name} {linear.entry.shape}, expected {linear.inputs} inputs",
            LEAVE_EXPERTS,
        )


def _refuse_all_tokens(linear: Linear, rows: Any) -> None:
    """Where all experts are multiplied at once, what is not sent to one must be zeros."""
    if linear.routed and bool(rows.any(dim=-1).all()):
        raise CheckpointError(
            f"every token runs through every expert at {linear.name}, and is weighed afterwards\n"
            "  what a router sends to an expert cannot be told from what it does not",
            f"{LEAVE_EXPERTS}; another version of transformers may run them one by one",
        )
