"""The source with the parts that a slice removed made ineffective in memory: what the slice must compute.

Heads and neurons are zeroed in the tensors before the stock class loads them; a layer that is gone hands on its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.checkpoint import Checkpoint
from langslice.errors import CheckpointError
from langslice.families import is_tower
from langslice.stock import model_class
from langslice.structure.anatomy import Anatomy, read_anatomy
from langslice.structure.edits import removed_indices
from langslice.structure.kept import Kept


def load_masked(checkpoint: Checkpoint, kept: Kept, options: Mapping[str, Any]) -> Any:
    """The stock model with what `kept` leaves out masked and skipped.

    options  of `from_pretrained`
    """
    import torch
    from transformers import AutoConfig
    from transformers.modeling_utils import load_state_dict

    anatomy = read_anatomy(checkpoint)
    tensors: dict[str, Any] = {}
    for path in {entry.path: None for entry in checkpoint.tensors.values()}:
        tensors |= load_state_dict(str(path), map_location="cpu")
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    for name, by_dim in removed_indices(anatomy, kept, shapes).items():
        tensors[name] = tensors[name].clone()
        for dim, gone in by_dim.items():
            tensors[name].index_fill_(dim, torch.from_numpy(gone), 0)
    folder = checkpoint.model_folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model = model_class(folder).from_pretrained(None, config=config, state_dict=tensors, **options)
    skip_layers(model, anatomy, kept)
    return model


def skip_layers(model: Any, anatomy: Anatomy, kept: Kept) -> None:
    """Make every layer that is gone hand on its input, in place."""
    for stack, stay in kept.layers.items():
        for number, layer in enumerate(layer_list(model, anatomy, stack)):
            if number not in stay:
                layer.register_forward_hook(_hand_on, with_kwargs=True)


def layer_list(model: Any, anatomy: Anatomy, stack: str) -> Any:
    """The modules of a stack, in order.

    Raises   CheckpointError where the stock class has no such list
    """
    from torch.nn import ModuleList

    names = {place.before.rstrip(".").rpartition(".")[2] for place in anatomy.places.values() if place.stack == stack}
    for name, module in model.named_modules():
        parts = name.split(".")
        if (
            isinstance(module, ModuleList)
            and parts[-1] in names
            and len(module) == anatomy.layers[stack]
            and (stack == "layers" or stack in parts)
            and not is_tower(name)
        ):
            return module
    raise CheckpointError(
        f"{type(model).__name__} has no list of the {anatomy.layers[stack]} layers of its {stack} stack"
    )


def _hand_on(module: Any, arguments: tuple[Any, ...], options: Mapping[str, Any], output: Any) -> Any:
    hidden = arguments[0] if arguments else options["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
