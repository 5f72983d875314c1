"""The vectors of a DiffMean inside a checkpoint: added to the bias of each block's last linear layer.

A block returns its input plus what its parts give; where the last of them ends in a bias that nothing scales or normalises after,
adding a vector to that bias is adding it to what the block returns. Whether that is so is measured, on the model in memory, before
anything is written; where there is no bias it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from langslice.errors import PlanError, VerificationError
from langslice.files.safetensors_header import TensorEntry
from langslice.model.anatomy import find_place
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.scoring.batches import Batch
from langslice.scoring.model_runs import Running
from langslice.sparsity.pruned_copy import copy_files
from langslice.sparsity.weight_bytes import FLOATS, read_bytes, read_tensor, stored_bytes, write_tensor, writing
from langslice.steering.adapter import Steering
from langslice.steering.differences import STACK
from langslice.steering.hooks import apply_steering

# Largest difference of the logits, of the largest logit: what float32 makes of another order of additions.
TOLERANCE = 1e-4
HOOK = "leave --fold out, and steer with langslice.steering.apply_steering"


def find_biases(running: Running, checkpoint: Checkpoint, steering: Steering) -> dict[int, str]:
    """Layer -> tensor of the checkpoint: the bias of its last linear layer.

    Raises   PlanError for a method without vectors, and, by name, for a layer without that bias
    """
    if steering.method != "diffmean":
        raise PlanError(f"--fold puts vectors into biases, and --steer-by {steering.method} has none", HOOK)
    names = {module: name for name, module in running.model.named_modules()}
    stored = {(place.layer, place.rest): name for name, place in running.anatomy.places.items() if place.stack == STACK}
    found = {}
    for layer in steering.vectors:
        module = running.sites.neurons.get(STACK, {}).get(layer)
        if module is None:
            raise PlanError(
                f"layer {layer} has no single last linear layer (experts?), so that nothing can be folded", HOOK
            )
        name = names[module]
        if getattr(module, "bias", None) is None:
            raise PlanError(
                f"`{steering.model_type}` has no bias in {name}, so that nothing can be folded into it", HOOK
            )
        place = find_place(f"{name}.bias", running.anatomy.body)
        tensor = stored.get((layer, place.rest)) if place is not None else None
        if tensor is None or checkpoint.tensors[tensor].dtype not in FLOATS:
            raise PlanError(
                f"{name}.bias is not a tensor of the checkpoint, so that nothing can be folded into it", HOOK
            )
        found[layer] = tensor
    return found


def check_folds(running: Running, steering: Steering, batches: Sequence[Batch]) -> None:
    """Refuse a model in which a vector in the bias is not the same as a vector after the block.

    running  in memory, in float32
    Raises   PlanError that names the layer's bias and the largest difference of the logits
    """
    import torch

    for batch in batches:
        with torch.no_grad():
            with apply_steering(running.model, steering):
                expected = running.model(**batch.inputs).logits
            with _in_biases(running, steering):
                folded = running.model(**batch.inputs).logits
        error = float((expected - folded).abs().max() / expected.abs().max())
        if not error <= TOLERANCE:
            raise PlanError(
                f"a vector in the biases of `{steering.model_type}` is not the same as one after its blocks, which scale or "
                f"normalise what the bias is added to: logits differ by {error:.2g} of the largest",
                HOOK,
            )


@contextmanager
def _in_biases(running: Running, steering: Steering) -> Iterator[None]:
    import torch

    modules = {layer: running.sites.neurons[STACK][layer] for layer in steering.vectors}
    before = {layer: module.bias.data for layer, module in modules.items()}
    try:
        for layer, module in modules.items():
            module.bias.data = before[layer] + steering.strength * torch.tensor(steering.vectors[layer])
        yield
    finally:
        for layer, module in modules.items():
            module.bias.data = before[layer]


def write_folded(checkpoint: Checkpoint, steering: Steering, biases: Mapping[int, str], folder: Path) -> None:
    """Write a copy of the checkpoint whose biases hold the vectors; every other tensor is the same, byte for byte.

    biases   layer -> tensor
    folder   empty
    Raises   VerificationError when what was written is not that
    """
    import torch

    copy_files(checkpoint, folder)
    staged = open_checkpoint(folder)
    expected = {
        name: stored_bytes(
            read_tensor(checkpoint.tensors[name]) + steering.strength * torch.tensor(steering.vectors[layer]),
            staged.tensors[name],
        )
        for layer, name in biases.items()
    }
    entries = [staged.tensors[name] for name in expected]
    with writing(entries) as descriptors:
        for entry in entries:
            write_tensor(descriptors[entry.path], entry, expected[entry.name])
    for name, entry in staged.tensors.items():
        if not _holds(entry, expected.get(name), checkpoint.tensors[name]):
            raise VerificationError(f"{name} of the folded checkpoint is not what it should be")


def _holds(entry: TensorEntry, expected: memoryview | None, source: TensorEntry) -> bool:
    """Whether a tensor has the bytes that were meant, in windows."""
    step = 16 << 20
    for offset in range(0, entry.size_bytes, step):
        size = min(step, entry.size_bytes - offset)
        wanted = (
            read_bytes(source, offset, size).tobytes()
            if expected is None
            else expected[offset : offset + size].tobytes()
        )
        if read_bytes(entry, offset, size).tobytes() != wanted:
            return False
    return True
