"""Experts that an unmodified class keeps in one tensor, as linear layers of their own: where their weights lie, and what they read.

Checkpoints store a matrix for each expert (`experts.3.up_proj.weight`). From version 5 on transformers merges those of a
block into one tensor, and multiplies a part of it with the tokens that the router sent to the expert. Here each expert's
layer is a module whose weight is a view of that part; what it reads is seen by watching torch's `linear`. The unmodified forward
runs unchanged. Earlier versions have a module for each expert, which needs nothing from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from langslice.files.safetensors_header import TensorEntry
from langslice.sparsity.blocks import EXPERT, Linear

# How transformers merges: one matrix after another, or two of each expert below each other, and then one after another.
_MERGES = ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)])


@dataclass(frozen=True)
class ExpertMatrix:
    """One expert's matrix within a merged tensor.

    name    of the layer, such as "model.layers.0.mlp.experts.3.up_proj"
    first   its first row within the expert's rows: gate and up projections lie below each other
    module  a linear layer for it; its weight is set when the merged tensor is loaded
    """

    name: str
    entry: TensorEntry
    expert: int
    first: int
    module: Any

    def within(self, merged: Any) -> Any:
        """Its rows of the merged tensor, (outputs, inputs)."""
        return merged[self.expert, self.first : self.first + self.entry.shape[0]]


def merged_parts(
    model: Any, tensors: Mapping[str, TensorEntry], renamings: Sequence[Any], converters: Sequence[Any]
) -> dict[str, tuple[ExpertMatrix, ...]]:
    """Parameter of the unmodified class -> the matrices that it is merged from, where all of them are there and fit.

    renamings, converters  of transformers, for this model
    """
    from transformers.core_model_loading import rename_source_key

    found: dict[str, list[tuple[int, int, str, TensorEntry]]] = {}
    for name, entry in tensors.items():
        target, pattern = rename_source_key(name, renamings, converters)
        number = EXPERT.search(name)
        converter = next((step for step in converters if pattern in step.source_patterns), None)
        if number is None or converter is None:
            continue
        if [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations] not in _MERGES:
            continue
        layer = rename_source_key(name, renamings, [])[0].removesuffix(".weight")
        place = converter.source_patterns.index(pattern)
        found.setdefault(target, []).append((int(number.group(1)), place, layer, entry))
    parts = {}
    for name, parameter in model.named_parameters():
        made = _fitted(tuple(parameter.shape), found.get(name, ()))
        if made:
            parts[name] = made
    return parts


def _fitted(shape: tuple[int, ...], matrices: Iterable[tuple[int, int, str, TensorEntry]]) -> tuple[ExpertMatrix, ...]:
    """The matrices in their places of a tensor (experts, outputs, inputs); () where they do not fill it."""
    import torch

    if len(shape) != 3:
        return ()
    parts: list[ExpertMatrix] = []
    rows: dict[int, int] = {}
    for expert, _, layer, entry in sorted(matrices, key=lambda item: item[:2]):
        if len(entry.shape) != 2 or entry.shape[1] != shape[2]:
            return ()
        module = torch.nn.Linear(entry.shape[1], entry.shape[0], bias=False, device="meta")
        parts.append(ExpertMatrix(layer, entry, expert, rows.get(expert, 0), module))
        rows[expert] = rows.get(expert, 0) + entry.shape[0]
    return tuple(parts) if rows == dict.fromkeys(range(shape[0]), shape[1]) else ()


def watching(linears: Iterable[Linear], hook: Callable[[Any, tuple[Any, ...]], None]) -> AbstractContextManager[Any]:
    """Call the hook with a module and its input for every product with a part of a merged tensor.

    linears   loaded; those that are modules of the unmodified class are left to their own hooks
    """
    import torch
    from torch.overrides import TorchFunctionMode

    # Products are told apart by where the expert's rows begin in memory.
    places: dict[int, list[Any]] = {}
    for linear in linears:
        if linear.first is not None:
            weight = linear.module.weight
            begin = weight.data_ptr() - linear.first * linear.inputs * weight.element_size()
            places.setdefault(begin, []).append(linear.module)
    if not places:
        return nullcontext()

    class Watching(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.nn.functional.linear and len(args) > 1:
                for module in places.get(args[1].data_ptr(), ()):
                    hook(module, (args[0],))
            return function(*args, **(kwargs or {}))

    return Watching()
