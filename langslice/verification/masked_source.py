"""The source with the parts that a slice removed made ineffective in memory: what the slice must compute.

Nothing here knows how a slice is written. The unmodified class loads the source as it is; then zeros are in the place of what
a head or a neuron that is gone gives to the matrix after it, a layer that is gone hands on its input, and the logit of an expert
that is gone is minus infinity before its router chooses. Hidden dimensions that are gone are zero wherever they are written
(verification/narrowed_source.py). Only rows that were pruned on purpose are zeroed in the weights, by
the plan's own list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy, find_place, read_anatomy
from langslice.model.axes import describe_tensor, find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.model.transformers_classes import model_class
from langslice.structure.checked import gone
from langslice.structure.kept import Kept
from langslice.verification.narrowed_source import narrow

Gone = dict[str, dict[int, list[int]]]


def load_masked(checkpoint: Checkpoint, kept: Kept, options: Mapping[str, Any]) -> Any:
    """The unmodified model with what `kept` leaves out silenced and skipped.

    options  of `from_pretrained`
    Raises   PlanError where the unmodified model has no module for a head, neuron or expert that is gone
    """
    from langslice.scoring.model_runs import silencing, skipping_layers
    from langslice.scoring.routing import closing
    from langslice.scoring.sites import find_sites

    anatomy = read_anatomy(checkpoint)
    model = _load(checkpoint, kept, options)
    sites = find_sites(model, anatomy)
    skipped = {stack: sorted(set(range(anatomy.layers[stack])) - set(stay)) for stack, stay in kept.layers.items()}
    skipping_layers(sites, skipped)
    heads = gone(
        kept.heads, {place: {at: row.query for at, row in rows.items()} for place, rows in anatomy.heads.items()}
    )
    neurons = gone(kept.neurons, anatomy.neurons)
    of_experts = {
        stack: {
            layer: neurons[stack].pop(layer)
            for layer in sorted(anatomy.expert_layers[stack])
            if layer in neurons[stack]
        }
        for stack in neurons
    }
    for kind, parts, found in (("heads", heads, sites.heads), ("neurons", neurons, sites.neurons)):
        for place, rows in parts.items():
            for layer in rows:
                if layer not in found.get(place, {}):
                    raise PlanError(f"no module of {type(model).__name__} reads the {kind} of {place} layer {layer}")
    silencing(sites, anatomy, heads, neurons)
    _silence_experts(model, anatomy, of_experts)
    closing(model, sites, anatomy, gone(kept.experts, anatomy.experts))
    if kept.hidden:
        narrow(model, anatomy, kept)
    return model


def _load(checkpoint: Checkpoint, kept: Kept, options: Mapping[str, Any]) -> Any:
    """The unmodified model, with the rows zeroed that a plan prunes on purpose."""
    import torch
    from transformers import AutoConfig
    from transformers.modeling_utils import load_state_dict

    tensors: dict[str, Any] = {}
    for path in {entry.path: None for entry in checkpoint.tensors.values()}:
        tensors |= load_state_dict(str(path), map_location="cpu")
    for name, by_dim in kept.zeroed.items():
        tensors[name] = tensors[name].clone()
        for dim, rows in by_dim.items():
            tensors[name].index_fill_(dim, torch.tensor(rows, dtype=torch.int64), 0)
    folder = checkpoint.model_folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return model_class(folder).from_pretrained(None, config=config, state_dict=tensors, **options)


def _silence_experts(model: Any, anatomy: Anatomy, neurons: Gone) -> None:
    """Zero the neurons of experts in memory: transformers 5 has one tensor for all of them, and no module."""
    import torch

    if not any(neurons.values()):
        return
    family = family_of(model.config.to_dict())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    rows = frozenset({find_vocabulary_size(family, {name: tuple(one.shape) for name, one in parameters.items()})})
    silenced: set[tuple[str, int]] = set()
    for name, parameter in parameters.items():
        place = find_place(name, anatomy.body)
        silent = neurons.get(place.stack, {}).get(place.layer) if place is not None else None
        if place is None or silent is None:
            continue
        for dim, axis in enumerate(describe_tensor(family, name, tuple(parameter.shape), rows).axes or ()):
            if axis == "neurons":  # of shared experts beside them, too
                parameter.data.index_fill_(dim, torch.tensor(silent), 0)
                silenced.add((place.stack, place.layer))
    missing = sorted({(stack, layer) for stack, layers in neurons.items() for layer in layers} - silenced)
    if missing:
        raise PlanError(
            f"no tensor of {type(model).__name__} reads the neurons of {missing[0][0]} layer {missing[0][1]}"
        )
