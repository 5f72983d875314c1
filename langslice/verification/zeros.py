"""Check that pruned weights are zero, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.model.checkpoint import Checkpoint
from langslice.verification.check import MAX_EXAMPLES, Check


def check_zeros(sliced: Checkpoint, done: Mapping[str, Any]) -> Check:
    """The zeros on disk are those that were reported."""
    from langslice.sparsity.weight_bytes import count_zeros

    wrong, zeros, size = [], 0, 0
    for name, tensor in done["tensors"].items():
        found = count_zeros(sliced.tensors[name]) if name in sliced.tensors else -1
        zeros, size = zeros + max(found, 0), size + tensor["size"]
        if found != tensor["zeros"]:
            wrong.append(f"{name}: {found:,} zeros, {tensor['zeros']:,} were reported")
    detail = f"{zeros:,} of {size:,} weights in {len(done['tensors'])} tensors are zero ({zeros / max(size, 1):.2%})"
    return Check("weights", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))
