"""The source with the parts that a slice removed made ineffective in memory: what the slice must compute.

Heads and neurons are zeroed in the tensors before the stock class loads them; a layer that is gone hands on its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import model_class
from langslice.structure.edits import removed_indices
from langslice.structure.kept import Kept


def load_masked(checkpoint: Checkpoint, kept: Kept, options: Mapping[str, Any]) -> Any:
    """The stock model with what `kept` leaves out masked and skipped.

    options  of `from_pretrained`
    """
    import torch
    from transformers import AutoConfig
    from transformers.modeling_utils import load_state_dict

    from langslice.scoring.model_runs import skipping_layers
    from langslice.scoring.sites import find_sites

    anatomy = read_anatomy(checkpoint)
    tensors: dict[str, Any] = {}
    for path in {entry.path: None for entry in checkpoint.tensors.values()}:
        tensors |= load_state_dict(str(path), map_location="cpu")
    shapes = checkpoint.shapes
    for name, by_dim in removed_indices(anatomy, kept, shapes).items():
        tensors[name] = tensors[name].clone()
        for dim, gone in by_dim.items():
            tensors[name].index_fill_(dim, torch.from_numpy(gone), 0)
    folder = checkpoint.model_folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model = model_class(folder).from_pretrained(None, config=config, state_dict=tensors, **options)
    skipped = {stack: set(range(anatomy.layers[stack])) - set(stay) for stack, stay in kept.layers.items()}
    skipping_layers(find_sites(model, anatomy), {stack: sorted(layers) for stack, layers in skipped.items()})
    return model
