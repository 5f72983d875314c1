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
from langslice.model.axes import describe_tensor, describe_tensors, find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.model.transformers_classes import model_class
from langslice.planning.plan import SlicePlan
from langslice.structure.hidden_size import hidden_size, is_headed, residual_of, scalings
from langslice.structure.kept import Kept

_EPSILONS = ("variance_epsilon", "eps")


def hidden_dims(structure: Kept | None) -> np.ndarray | None:
    """(n,) int64, the hidden dimensions that a slice keeps; None where it keeps all."""
    return None if structure is None or not structure.hidden else np.asarray(structure.hidden, dtype=np.int64)


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
    """New name -> values of what the plan scales, float64, cut as the plan says."""
    from langslice.structure.edits import layer_edits
    from langslice.structure.scaled_values import as_float64
    from langslice.structure.written_zeros import opened

    anatomy = read_anatomy(checkpoint)
    family = family_of(checkpoint.config)
    axes = describe_tensors(family, checkpoint.shapes, plan.rows)
    edits = layer_edits(anatomy, kept, checkpoint.shapes)
    found: dict[str, np.ndarray] = {}
    for name, scaling in scalings(anatomy, kept, axes).items():
        if plan.tensors[name].action == "drop":
            continue
        entry = checkpoint.tensors[name]
        values = as_float64(opened(entry, "r"), entry.dtype)
        indices = dict(edits[name].indices) if name in edits else {}
        indices |= {dim: np.asarray(kept.hidden) for dim, axis in enumerate(axes[name].axes or ()) if axis == "hidden"}
        for dim, stay in indices.items():
            values = np.take(values, stay, axis=dim)
        found[plan.tensors[name].name or name] = (values + scaling.offset) * scaling.factor - scaling.offset
    return found
