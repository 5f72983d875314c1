"""The unmodified model over the checkpoint's own bytes: mapped, not read, and made float32 one layer at a time.

Every tensor is a view of a private memory map, so that loading costs no memory; unmodified transformers renames, ties and
completes the weights as it always does. While a layer runs, its weights are converted to float32 and its pages are in
memory; afterwards both go. Of an embedding only the rows that the text uses are touched.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langslice.errors import ScoreError
from langslice.model.anatomy import Anatomy, find_place
from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import dtype_option, model_class, quiet_transformers
from langslice.scoring.sites import Sites

_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class MappedWeights:
    """Memory maps of a checkpoint's weight files, and its tensors as views of them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch

        self._maps: dict[str, mmap.mmap] = {}
        self.tensors: dict[str, Any] = {}
        for name, entry in checkpoint.tensors.items():
            if entry.dtype not in _TORCH:
                raise ScoreError(
                    f"{name} is stored as {entry.dtype}, which the model cannot be run from",
                    hint="score the model that was quantised",
                )
            if not entry.size_bytes:
                self.tensors[name] = torch.empty(entry.shape, dtype=getattr(torch, _TORCH[entry.dtype]))
                continue
            if str(entry.path) not in self._maps:
                with entry.path.open("rb") as file:
                    # Private: whatever a library writes into a weight stays in this process.
                    self._maps[str(entry.path)] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            flat = torch.frombuffer(
                self._maps[str(entry.path)], dtype=torch.uint8, count=entry.size_bytes, offset=entry.start
            )
            self.tensors[name] = flat.view(getattr(torch, _TORCH[entry.dtype])).reshape(entry.shape)

    def release(self) -> None:
        """Give back the pages that were read; they are read again when needed."""
        for mapped in self._maps.values():
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def load_unmodified(checkpoint: Checkpoint, anatomy: Anatomy, weights: MappedWeights, *, whole: bool) -> Any:
    """The class that config.json names, in eval mode, without gradients of its parameters.

    whole    convert every weight to float32 now; otherwise the stored type stays, and with it the map
    Raises   ScoreError where there is no unmodified class, the weights are quantised, or a weight of a layer is missing
    """
    import torch
    import transformers

    folder = checkpoint.model_folder
    if "quantization_config" in checkpoint.config:
        raise ScoreError(
            "the weights are quantised, and a model of them is not run here", hint="score the model that was quantised"
        )
    stock = model_class(folder)
    if stock is None:
        raise ScoreError(
            f"config.json names no class that transformers {transformers.__version__} has (`architectures`)",
            hint="scores l1 and l2 need no class",
        )
    dtype = torch.float32 if whole else _common_dtype(weights.tensors)
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = stock.from_pretrained(
            None,
            config=transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False),
            state_dict=dict(weights.tensors),
            output_loading_info=True,
            **dtype_option(dtype),
        )
    missing = sorted(key for key in info["missing_keys"] if find_place(key, anatomy.body) is not None)
    if missing:
        raise ScoreError(
            f"the checkpoint lacks {len(missing)} weights of {stock.__name__}, {missing[0]} for one",
            hint="transformers would fill them with random numbers",
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def _common_dtype(tensors: dict[str, Any]) -> Any:
    sizes: dict[Any, int] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: sizes[dtype])


@contextmanager
def one_layer_at_a_time(model: Any, sites: Sites, weights: MappedWeights) -> Iterator[None]:
    """Keep at most one layer's weights in memory while the model runs; arithmetic is float32 throughout."""
    import torch

    layers = {module for stack in sites.layers.values() for module in stack.values()}
    inside = {part for layer in layers for part in layer.modules()}
    hooks = []
    for module in model.modules():
        if module in layers:
            hooks += _borrowing(module, list(module.parameters()), weights)
        elif module in inside or not list(module.parameters(recurse=False)):
            continue
        elif isinstance(module, torch.nn.Embedding):
            hooks.append(module.register_forward_hook(lambda module, args, output: output.float()))
        else:
            hooks += _borrowing(module, list(module.parameters(recurse=False)), weights)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _borrowing(module: Any, parameters: list[Any], weights: MappedWeights) -> list[Any]:
    """Hooks that give a module float32 weights for the time that it runs."""
    stored = [parameter.data for parameter in parameters]

    def take(module: Any, args: Any) -> None:
        for parameter, view in zip(parameters, stored, strict=True):
            if view.is_floating_point():
                parameter.data = view.float()

    def give_back(module: Any, args: Any, output: Any) -> None:
        for parameter, view in zip(parameters, stored, strict=True):
            parameter.data = view
        weights.release()

    return [module.register_forward_pre_hook(take), module.register_forward_hook(give_back, always_call=True)]
