"""Long prompts pass a block faster: weights laid out once for the processor, and activation functions in one sweep.

Each prompt passes a block twice, and its weights stand still meanwhile: oneDNN arranges them once for all products. On
processors for which torch's own float32 products are not tuned this is a quarter faster. Stock classes that write the tanh
form of GELU as eight operations, each over all of memory, are given torch's single one. Values are those of float32 in
another order of additions. Where oneDNN cannot do it, torch's plain products serve: oneDNN refuses bfloat16 on processors
without AVX-512 or AVX-NE-CONVERT, and LANGSLICE_ONEDNN=0 in the environment leaves it alone altogether.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from langslice.demonstrations.tokens import Prompt
from langslice.sparsity.blocks import Block, Linear

MIN_TOKENS = 1024  # arranging a weight takes as long as some two hundred tokens gain

SWITCH = "LANGSLICE_ONEDNN"  # of the environment; 0 leaves oneDNN's operations alone

TANH_GELU = ("NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation", "BloomGelu")  # of transformers

Operation = Callable[..., Any]


def worth_packing(prompts: Sequence[Prompt]) -> bool:
    """Whether these prompts are long enough together to pay for arranging the weights."""
    return sum(1 for prompt in prompts for _ in prompt.all_tokens()) >= MIN_TOKENS


@contextmanager
def packed(block: Block, compute: str) -> Iterator[None]:
    """Let a loaded block's linear layers work on arranged copies of their weights, each made when it is first called.

    compute  "float32" or "bfloat16", what products are taken in; a layer then returns that type
    The weights must not change meanwhile. At most one more copy of the block is in memory.
    """
    import torch

    changed = []
    operations = _operations(compute)
    if operations is not None:
        for linear in block.linears:
            if _is_plain(linear):
                linear.module.forward = _product(linear, compute, operations)
                changed.append(linear.module)
    for module in block.module.modules():
        if type(module).__name__ in TANH_GELU:
            module.forward = partial(torch.nn.functional.gelu, approximate="tanh")
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _is_plain(linear: Linear) -> bool:
    """Whether the layer is the unmodified product, not a subclass that does more."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return linear.first is None and type(linear.module).forward in (torch.nn.Linear.forward, Conv1D.forward)


def _product(linear: Linear, compute: str, operations: tuple[Operation, Operation]) -> Operation:
    """The layer's forward on an arranged copy of its weight."""
    import torch

    module, stock = linear.module, type(linear.module).forward
    kind = getattr(torch, compute)
    arrange, multiply = operations
    kept: list[Any] = []

    def forward(rows: Any) -> Any:
        if rows.dtype not in (torch.float32, kind) or not rows.numel():
            return stock(module, rows)
        if not kept:
            bias = None if module.bias is None else module.bias.to(kind)
            kept.extend((arrange(linear.rows().to(kind).contiguous()), bias))
        return multiply(rows.to(kind), kept[0], kept[1], "none", [], "")

    return forward


@cache
def _operations(compute: str) -> tuple[Operation, Operation] | None:
    """Two operations that torch uses in compiled models and does not document; None where they do not work in this type.

    They are tried on a small product, once for each type: what they support depends on processor and release.
    """
    import torch

    if os.environ.get(SWITCH) == "0" or not torch._C._has_mkldnn:
        return None
    kind = getattr(torch, compute)
    # Whole numbers below 256: every type holds the results exactly.
    rows, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.ones(4)
    try:
        arrange, multiply = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
        found = multiply(rows.to(kind), arrange(weight.to(kind)), bias.to(kind), "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    right = found.dtype == kind and torch.equal(found.float(), rows @ weight.T + bias)
    return (arrange, multiply) if right else None
