"""Pruned weights that stay zero while a model trains, and verification on disk that they did.

Zeros are held in two ways: their gradients are set to zero, so that neither the optimizer's state nor the clipping of gradients
sees them, and after every step they are written again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from langslice.errors import HealError, VerificationError
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry
from langslice.healing.student import HealedFolder, is_float
from langslice.model.axes import describe_tensor
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.sparsity.weight_bytes import WINDOW_BYTES, count_zeros, read_bytes

# A trained matrix has no exact zeros but by rounding; one in a hundred was put there.
_PRUNED_SHARE: Final = 0.01
_CUT_PARTS: Final = ("attention", "feed-forward", "router")


@dataclass
class Held:
    """What is held.

    zeros  tensor on disk -> its zero elements before training
    masks  parameter name -> (parameter, bool tensor of its shape, True where it stays zero)
    """

    zeros: dict[str, int]
    masks: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def apply(self) -> None:
        """Write the zeros again."""
        import torch

        with torch.no_grad():
            for parameter, mask in self.masks.values():
                parameter.masked_fill_(mask, 0)


def find_zeros(source: HealedFolder, how: str) -> dict[str, int]:
    """Tensors on disk whose zeros are held, and how many each has.

    how      "auto": what slice.json says was pruned or masked, and every matrix of the layers that is at least 1% zero;
             "all": every matrix with a zero; "none"
    Raises   HealError where slice.json names more or fewer zeros than are there
    """
    if how == "none":
        return {}
    plan, tensors = source.plan, source.checkpoint.tensors
    recorded = dict(plan.pruned.get("tensors", {})) if plan is not None else {}
    masked = plan is not None and plan.structure is not None and plan.structure.writes_zeros
    family = family_of(source.checkpoint.config) if masked else None
    found: dict[str, int] = {}
    for name, entry in tensors.items():
        if not is_float(entry.dtype) or not entry.size_bytes or (len(entry.shape) < 2 and family is None):
            continue
        zeros = count_zeros(entry)
        size = entry.size_bytes * 8 // DTYPE_BITS[entry.dtype]
        cut = family is not None and describe_tensor(family, name, entry.shape, frozenset()).part in _CUT_PARTS
        is_pruned = len(entry.shape) > 1 and zeros >= _PRUNED_SHARE * size and not _is_table(name, source.checkpoint)
        if zeros and (name in recorded or cut or is_pruned or (how == "all" and len(entry.shape) > 1)):
            found[name] = zeros
    for name, tensor in recorded.items():
        if how == "auto" and found.get(name, 0) != tensor["zeros"]:
            raise HealError(
                f"{name} has {found.get(name, 0):,} zeros, slice.json says {tensor['zeros']:,}\n  in {source.folder}",
                "weights were changed after they were pruned; pass --zeros all to hold what is zero now",
            )
    return found


def hold(model: Any, zeros: dict[str, int]) -> Held:
    """Hold the zeros of a loaded model.

    zeros    as `find_zeros` gave them
    Raises   HealError where a tensor has no parameter of its own
    """
    held = Held(dict(zeros))
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, count in zeros.items():
        parameter = named.get(name, named.get(name.removeprefix(f"{model.base_model_prefix}.")))
        mask = None if parameter is None else parameter.detach() == 0
        if parameter is None or mask is None or int(mask.sum()) != count:
            raise HealError(
                f"{name} is zero in {count:,} places, and the loaded model keeps it in another form",
                "--zeros none lets them fill with values",
            )
        held.masks[name] = (parameter, mask)
        if parameter.requires_grad:
            parameter.register_hook(_Masked(mask))
    return held


class _Masked:
    """A gradient without what is held at zero."""

    def __init__(self, mask: Any) -> None:
        self._mask = mask

    def __call__(self, gradient: Any) -> Any:
        if self._mask.device != gradient.device:
            self._mask = self._mask.to(gradient.device)
        return gradient.masked_fill(self._mask, 0)


def check_held(source: Checkpoint, healed: Checkpoint, zeros: dict[str, int]) -> dict[str, dict[str, int]]:
    """Compare files: every zero of the source is one in the result, and there are no others.

    Returns  tensor -> {"before": zeros, "after": zeros}
    Raises   VerificationError, naming the tensors
    """
    counts: dict[str, dict[str, int]] = {}
    wrong: list[str] = []
    for name in zeros:
        before, after, filled = _compared(source.tensors[name], healed.tensors[name])
        counts[name] = {"before": before, "after": after}
        if filled or before != after:
            wrong.append(f"  {name}: {before:,} zeros before, {after:,} after, {filled:,} were filled")
    if wrong:
        raise VerificationError(
            f"pruned weights did not stay zero in {len(wrong)} tensors; nothing was written\n" + "\n".join(wrong[:10]),
            "this is a defect of langslice, or of the way in which the model was spread over devices",
        )
    return counts


def _compared(before: TensorEntry, after: TensorEntry) -> tuple[int, int, int]:
    """Zeros of both, and zeros of the first that are none in the second."""
    kind = np.dtype(f"u{DTYPE_BITS[before.dtype] // 8}")
    one = np.array(1, dtype=kind)
    totals = np.zeros(3, dtype=np.int64)
    for offset in range(0, before.size_bytes, WINDOW_BYTES):
        size = min(WINDOW_BYTES, before.size_bytes - offset)
        # The sign bit is shifted out: -0 is a zero too.
        was, now = (np.left_shift(read_bytes(entry, offset, size).view(kind), one) == 0 for entry in (before, after))
        totals += [int(was.sum()), int(now.sum()), int((was & ~now).sum())]
    return int(totals[0]), int(totals[1]), int(totals[2])


def _is_table(name: str, checkpoint: Checkpoint) -> bool:
    """Whether a matrix is outside the layers: padding rows of tables are zero for other reasons."""
    described = describe_tensor(family_of(checkpoint.config), name, checkpoint.tensors[name].shape, frozenset())
    return described.part not in _CUT_PARTS
