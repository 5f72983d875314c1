"""The source with some dimensions of its hidden states held at zero, and norms of those that stay: what a narrower slice computes.

Nothing here knows how a slice scales its weights. Every matrix, bias and embedding of the unmodified source that writes to the
stream gets zeros where a dimension is gone. A root mean square then needs nothing but another epsilon; a layer norm takes mean
and variance of the dimensions that stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy, read_anatomy
from langslice.model.axes import TensorAxes, describe_tensor, describe_tensors, find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.model.transformers_classes import model_class
from langslice.planning.plan import SlicePlan
from langslice.structure.edits import layer_edits
from langslice.structure.hidden_size import hidden_size, is_headed, residual_of, scalings
from langslice.structure.kept import Kept
from langslice.structure.rotation import basis_of, cut_beside, refuse_rotation, turned
from langslice.structure.scaled_values import as_float64
from langslice.structure.written_zeros import opened

_EPSILONS = ("variance_epsilon", "eps")


def hidden_dims(checkpoint: Checkpoint, structure: Kept | None) -> np.ndarray | None:
    """Which part of the source's states a slice has: None for all of them.

    Returns  (n,) int64 dimensions; after a rotation (hidden, n) float64, what states are multiplied by
    """
    if structure is None or not structure.hidden:
        return None
    if not structure.rotation:
        return np.asarray(structure.hidden, dtype=np.int64)
    basis = basis_of(read_anatomy(checkpoint), structure)
    part: np.ndarray = basis * (basis.shape[1] / basis.shape[0]) ** 0.5
    return part


def part_of(states: Any, dims: np.ndarray | None) -> Any:
    """Of a tensor of states (..., hidden) what a slice has (..., n)."""
    import torch

    if dims is None:
        return states
    given = torch.from_numpy(dims)
    return states[..., given] if given.ndim == 1 else states.double() @ given


def narrow(model: Any, anatomy: Anatomy, kept: Kept) -> None:
    """Hold the dimensions that a slice has not at zero in an unmodified model, in memory.

    Raises   PlanError for a norm whose class is not known
    """
    import torch

    residual = residual_of(anatomy)
    family = family_of(model.config.to_dict())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    rows = frozenset({find_vocabulary_size(family, {name: tuple(one.shape) for name, one in parameters.items()})})
    size = hidden_size(anatomy)
    stay = torch.tensor(kept.hidden)
    gone = torch.tensor(np.setdiff1d(np.arange(size), kept.hidden))
    share = len(kept.hidden) / size
    norms: dict[str, Any] = {}
    if kept.rotation:
        described = {name: describe_tensor(family, name, tuple(one.shape), rows) for name, one in parameters.items()}
        _project(model, anatomy, kept, described)
        return
    for name, parameter in parameters.items():
        tensor = describe_tensor(family, name, tuple(parameter.shape), rows)
        if tensor.part == "norm" and tensor.axes == ("hidden",):
            norms[name.rpartition(".")[0]] = model.get_submodule(name.rpartition(".")[0])
            continue
        for dim, axis in enumerate(tensor.axes or ()):
            if axis == "hidden":
                parameter.data.index_fill_(dim, gone, 0)
    for name, norm in norms.items():
        if residual.norm == "layer":
            _take_kept(norm, name, stay)
            continue
        before = residual.scaled and not (residual.after and re.search(rf"\.(?:{residual.after})$", name))
        _scale_epsilon(norm, name, 1.0 if before else share)
    if residual.divided and is_headed(model.config.architectures) and _divides(model):
        # The slice's class divides by the root of its own size, and its last norm gives that much less.
        model.decoder.final_layer_norm.weight.data.mul_(share**0.5)
        model.model_dim = len(kept.hidden)


def _project(model: Any, anatomy: Anatomy, kept: Kept, tensors: Mapping[str, TensorAxes]) -> None:
    """Keep the stream of a model within the space that a rotated slice has, after everything that is added to it.

    The last norm hands its weights to the head, as states of the slice come without them.
    """
    import torch

    basis = basis_of(anatomy, kept)
    space = torch.from_numpy(basis @ basis.T).float()
    share = len(kept.hidden) / len(basis)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    turns = refuse_rotation(anatomy, tensors)
    for name, turn in turns.items():
        data = parameters[name].data
        if turn.ones:
            _scale_epsilon(model.get_submodule(name.rpartition(".")[0]), name, share)
        elif not turn.norm:
            data.copy_(torch.movedim(torch.tensordot(data, space, dims=([turn.dim], [0])), -1, turn.dim))
        elif turn.norm not in anatomy.places:
            data.mul_(parameters[turn.norm].data)
    for norm in {turn.norm for turn in turns.values() if turn.norm and turn.norm not in anatomy.places}:
        parameters[norm].data.fill_(1)


def _divides(model: Any) -> bool:
    config = model.config
    return bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))


def _scale_epsilon(norm: Any, name: str, factor: float) -> None:
    found = next((one for one in _EPSILONS if isinstance(getattr(norm, one, None), float)), None)
    if found is None:
        raise PlanError(f"{name}: {type(norm).__name__} keeps its epsilon under no name that is known")
    setattr(norm, found, getattr(norm, found) * factor)


def _take_kept(norm: Any, name: str, stay: Any) -> None:
    """Let a layer norm take mean and variance of some dimensions, and give zeros in the others."""
    import torch

    if not isinstance(norm, torch.nn.LayerNorm):
        raise PlanError(f"{name}: {type(norm).__name__} is no layer norm of torch")

    def forward(states: Any) -> Any:
        few = torch.nn.functional.layer_norm(
            states[..., stay], (len(stay),), norm.weight[stay], norm.bias[stay], norm.eps
        )
        return torch.zeros_like(states).index_copy_(-1, stay, few)

    setattr(norm, "forward", forward)  # noqa: B010 - mypy takes methods for constants


def load_unrounded(
    checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan, kept: Kept, options: Mapping[str, Any]
) -> Any:
    """The slice in its unmodified class, with scaled weights as they were before they were rounded to a half-precision type.

    options  of `from_pretrained`
    """
    import torch
    from transformers import AutoConfig
    from transformers.modeling_utils import load_state_dict

    tensors: dict[str, Any] = {}
    for path in {entry.path: None for entry in sliced.tensors.values()}:
        tensors |= load_state_dict(str(path), map_location="cpu")
    for name, values in _unrounded(checkpoint, plan, kept).items():
        if tensors[name].dtype in (torch.float16, torch.bfloat16):
            tensors[name] = torch.from_numpy(values.astype(np.float32))
    folder = sliced.model_folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return model_class(folder).from_pretrained(None, config=config, state_dict=tensors, **options)


def _unrounded(checkpoint: Checkpoint, plan: SlicePlan, kept: Kept) -> dict[str, np.ndarray]:
    """New name -> values (...) of what the plan scales or rotates, float64, cut as the plan says."""
    anatomy = read_anatomy(checkpoint)
    tensors = describe_tensors(family_of(checkpoint.config), checkpoint.shapes, plan.rows)
    layers = layer_edits(anatomy, kept, checkpoint.shapes)
    found: dict[str, np.ndarray] = {}
    turns = refuse_rotation(anatomy, tensors) if kept.rotation else {}
    scales = scalings(anatomy, kept, tensors)
    for name in (*turns, *scales):
        if plan.tensors[name].action == "drop":
            continue
        indices = dict(layers[name].indices) if name in layers else {}
        for dim, axis in enumerate(tensors[name].axes or ()):
            if axis == "vocab" and not plan.keeps_vocabulary:
                indices[dim] = plan.new_to_old
            elif axis == "hidden" and not kept.rotation:
                indices[dim] = np.asarray(kept.hidden)
        new_name = plan.tensors[name].name or name
        if name in turns:
            parts = turned(checkpoint, name, turns[name], cut_beside(turns[name], indices), basis_of(anatomy, kept))
            found[new_name] = np.concatenate([values for _, values in parts])
            continue
        entry, scaling = checkpoint.tensors[name], scales[name]
        values = as_float64(opened(entry, "r"), entry.dtype)
        for dim, stay in indices.items():
            values = np.take(values, stay, axis=dim)
        found[new_name] = (values + scaling.offset) * scaling.factor - scaling.offset
    return found
