"""Where each parameter of an unmodified class lies in a checkpoint, whatever either calls it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langslice.files.safetensors_header import TensorEntry
from langslice.model.axes import describe_tensor, find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.sparsity.experts import ExpertMatrix, merged_parts, stacked_parts

_OLD_LEAVES = {"gamma": "weight", "beta": "bias"}  # layer norms of checkpoints from before 2020


def find_places(
    model: Any, checkpoint: Checkpoint
) -> tuple[dict[str, TensorEntry], dict[str, tuple[ExpertMatrix, ...]]]:
    """Where parameters and buffers of the class are on disk, whichever prefix the file was saved with.

    Returns  name in the class -> tensor, and name in the class -> matrices of experts that it consists of
    """
    tensors, merged = _renamed(model, checkpoint.tensors)
    for name in list(tensors):
        stem, _, leaf = name.rpartition(".")
        if leaf in _OLD_LEAVES:
            tensors.setdefault(f"{stem}.{_OLD_LEAVES[leaf]}", tensors[name])
    prefix = model.base_model_prefix + "."
    places = {}
    for name in [name for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers())]:
        for known in (name, name.removeprefix(prefix), prefix + name):
            if known in tensors:
                places[name] = tensors[known]
                break
    return places, {**stacked_parts(model, places, family_of(checkpoint.config)), **merged}


def _renamed(
    model: Any, tensors: Mapping[str, TensorEntry]
) -> tuple[dict[str, TensorEntry], dict[str, tuple[ExpertMatrix, ...]]]:
    """Tensors by the name that the class reads them under, as transformers' own table of renamings says.

    Tensors that transformers would split, transpose or otherwise rework on loading are left out: they have no one place.
    Returns  those with a place of their own, and those that are merged
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:  # transformers 4 keeps a table of patterns at the class
        table: Mapping[str, str] = getattr(model, "_checkpoint_conversion_mapping", None) or {}
        return {_substituted(name, table): entry for name, entry in tensors.items()}, {}
    steps = get_model_conversion_mapping(model)
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    renamings = [step for step in steps if not isinstance(step, WeightConverter)]
    found = {}
    for name, entry in tensors.items():
        new, converted = rename_source_key(name, renamings, converters)
        if converted is None:
            found[new] = entry
    return found, merged_parts(model, tensors, renamings, converters)


def _substituted(name: str, table: Mapping[str, str]) -> str:
    for pattern, replacement in table.items():
        new, count = re.subn(pattern, replacement, name)
        if count:
            return new
    return name


def vocabulary_names(checkpoint: Checkpoint) -> frozenset[str]:
    """Tensors that run along the vocabulary."""
    family = family_of(checkpoint.config)
    shapes = checkpoint.shapes
    sizes = frozenset({find_vocabulary_size(family, shapes)})
    return frozenset(
        name for name, shape in shapes.items() if "vocab" in (describe_tensor(family, name, shape, sizes).axes or ())
    )
