"""The counterpart of one tensor of a LoRA, in the slice or in the original.

The update of a weight is B A. Rows of B and columns of A that belong to what the slice kept give the update of the slice's
weight, exactly; on the way back, zeros stand for what the slice has not. Nothing is recomputed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.errors import PlanError
from langslice.files.gather_rows import sliced_shape
from langslice.model.adapter_names import FACTORS, ROOT
from langslice.model.axes import VOCABULARY_AXES
from langslice.model.checkpoint import Checkpoint
from langslice.planning.plan import SlicePlan
from langslice.restoration.merge import Placement, float_rows
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = ".token_adapter.trainable_tokens_delta"
BASE_COPY = ".base_layer.weight"
# A bias that LoRA trains next to a layer that it wraps, and parameters that the adapter holds instead of the base's.
WHOLE = (".base_layer.bias", ".weight", ".bias")


@dataclass(frozen=True)
class Weight:
    """A tensor of the original, and what the slice made of it.

    name, shape, axes  in the original
    edit               the slice's gather and name
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    edit: TensorEdit

    @property
    def new_name(self) -> str:
        """Its name in the slice."""
        return self.edit.name or self.name

    @property
    def new_shape(self) -> tuple[int, ...]:
        """Its shape in the slice."""
        return sliced_shape(self.shape, self.edit.indices)


@dataclass(frozen=True)
class Route:
    """One way to go.

    to       "slice" or "original"
    weights  name on the side where the adapter is -> weight; on the way to the slice, layers that it lacks too
    flipped  whether weights are stored as (in, out), as GPT-2's Conv1D does (`fan_in_fan_out`)
    base     the original's weights; None where nobody named it
    """

    to: str
    plan: SlicePlan
    weights: Mapping[str, Weight]
    flipped: bool
    base: Checkpoint | None


@dataclass(frozen=True)
class Carried:
    """A tensor's counterpart.

    modules  its module before and after
    """

    name: str
    value: Tensor
    modules: tuple[str, str]


def route(to: str, plan: SlicePlan, weights: list[Weight], *, flipped: bool, base: Checkpoint | None) -> Route:
    """The way to one side."""
    if to == "slice":
        known = {weight.name: weight for weight in weights}
    else:
        known = {weight.new_name: weight for weight in weights if weight.edit.action != "drop"}
    return Route(to, plan, known, flipped, base)


def split_name(name: str) -> tuple[str, str]:
    """A tensor's name as module and ending.

    Example  "base_model.model.h.0.c_attn.lora_A.weight" gives ("h.0.c_attn", ".lora_A.weight")
    Raises   PlanError for a tensor of another kind of adapter
    """
    inner = name.removeprefix(ROOT)
    for ending in (*FACTORS, TOKENS, BASE_COPY, *WHOLE):
        if inner.endswith(ending):
            return inner.removesuffix(ending), ending
    raise PlanError(
        f"the adapter's tensor {name} is not understood",
        "factors of LoRA, DoRA's magnitudes, whole tables and trained tokens are",
    )


def checked(tensors: object, path: Path) -> dict[str, Tensor]:
    """An adapter's tensors, each of a name, a type and as many dimensions as such an adapter has.

    Returns  name -> tensor: (rank, in) and (out, rank) of a matrix, (n,) of a vector
    Raises   PlanError that names the first that is not
    """
    import torch

    if not isinstance(tensors, dict):
        raise PlanError(f"{path} holds {type(tensors).__name__}, expected tensors by name", "save the adapter again")
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.dtype not in floats:
            found = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise PlanError(
                f"{path}: {name} is {found}, expected numbers of 16, 32 or 64 bits", "save the adapter again"
            )
        ending = split_name(name)[1]
        expected = {len(FACTORS[ending])} if ending in FACTORS else {2} if ending == TOKENS else {1, 2, 3, 4}
        if value.ndim not in expected:
            raise PlanError(
                f"{path}: {name} has shape {tuple(value.shape)}, expected {min(expected)} dimensions",
                "factors of linear layers and of embeddings are carried, of convolutions not",
            )
    return tensors


def find_tensor(module: str, ending: str, names: Mapping[str, Any]) -> str | None:
    """The tensor of a module, whose path may have more or less of a prefix than the checkpoint's names."""
    wanted = module + ending
    if wanted in names:
        return wanted
    near = [name for name in names if name.endswith("." + wanted) or wanted.endswith("." + name)]
    return near[0] if len(near) == 1 else None


def parameter_of(ending: str) -> str:
    """The module's parameter that a tensor of the adapter changes."""
    return ".bias" if ending.endswith("_layer.bias") or ending == ".bias" else ".weight"


def carry_tensor(name: str, value: Tensor, way: Route) -> Carried | str:
    """The counterpart of a tensor of the adapter, or why there is none.

    value    (rank, in), (out, rank), or (n,) for a bias; any float type, which the result keeps
    Raises   PlanError where there should be one and it cannot be told
    """
    module, ending = split_name(name)
    if ending == BASE_COPY:
        return "a copy of the base's own table, which peft reads from the base"
    found = find_tensor(module, parameter_of(ending), way.weights)
    weight = _head(module, ending, value, way) if found is None else way.weights[found]
    if weight is None:  # a classification head: as wide as the hidden size, which no slice changes
        return Carried(name, value, (module, module))
    if weight.edit.action == "drop":
        return f"its layer is not in the slice: {weight.edit.reason}"
    new_module = module
    if found is not None:
        new_module = _renamed(module, found, weight.new_name if way.to == "slice" else weight.name)
    moved = _whole(name, value, weight, way) if ending in WHOLE else _factor(name, ending, value, weight, way)
    return Carried(f"{ROOT}{new_module}{ending}", moved, (module, new_module))


def _head(module: str, ending: str, value: Tensor, way: Route) -> Weight | None:
    """A weight that the checkpoint does not hold under this name: a tied output head, or None for a head of a task.

    Raises   PlanError for a module of a numbered layer
    """
    rows = way.plan.rows if way.to == "slice" else len(way.plan.new_to_old)
    sides = FACTORS.get(ending, ("out", "in"))
    if "out" in sides and value.shape[sides.index("out")] == rows:
        indices = {} if way.plan.keeps_vocabulary else {0: way.plan.new_to_old}
        return Weight("", (way.plan.rows, 0), ("vocab", "hidden"), TensorEdit("slice", indices))
    if re.search(r"\.\d+\.", f".{module}."):
        raise PlanError(
            f"the adapter's {module}{ending} belongs to no tensor of the plan",
            "was the adapter trained on this model, and is this the plan of its slice?",
        )
    return None


def _renamed(module: str, found: str, there: str) -> str:
    """A module's path with the layer number of its counterpart.

    Example  "x.layers.3.q_proj" for "layers.3.q_proj.weight" and "layers.2.q_proj.weight": "x.layers.2.q_proj"
    """
    old, new = found.rpartition(".")[0], there.rpartition(".")[0]
    if module.endswith(old):
        return module.removesuffix(old) + new
    return new[len(old) - len(module) :]  # the checkpoint's names have the longer prefix


def _factor(name: str, ending: str, value: Tensor, weight: Weight, way: Route) -> Tensor:
    """One factor of an update, along the dimension of the weight that it runs along."""
    rows, columns = _sides(ending, value, weight, way)
    magnitude = "magnitude" in ending
    if magnitude and columns in weight.edit.indices:
        raise PlanError(
            f"{name}: DoRA scales by the length of whole rows, and the slice has not all inputs of this layer",
            "train without use_dora, or leave this layer whole",
        )
    for at, side in enumerate(FACTORS[ending]):
        dim = {"out": rows, "in": columns}.get(side)
        if dim is None or dim not in weight.edit.indices:
            continue
        if magnitude and way.to == "original":
            raise PlanError(
                f"{name}: the slice has not all outputs of this layer, and DoRA's magnitudes of the others are not known",
                "merge the adapter into the slice and restore that",
            )
        value = _moved(name, value, at, weight, dim, way)
    return value


def _sides(ending: str, value: Tensor, weight: Weight, way: Route) -> tuple[int, int]:
    """Which dimension of the stored weight is outputs, and which inputs."""
    if "embedding" in ending or not weight.name:
        return 0, 1
    here = weight.shape if way.to == "slice" else weight.new_shape
    flipped = way.flipped
    if len(here) == 2 and here[0] != here[1]:  # shapes are surer than the setting, which holds for some layers only
        side = 0 if "out" in FACTORS[ending] else 1
        size = value.shape[FACTORS[ending].index("out" if side == 0 else "in")]
        if size not in here:
            raise PlanError(f"{name_of(ending, weight)} has {size} entries, the weight has shape {here}")
        flipped = size != here[side]
    return (1, 0) if flipped else (0, 1)


def name_of(ending: str, weight: Weight) -> str:
    """How messages call a factor."""
    return f"{weight.name.removesuffix('.weight')}{ending}"


def _whole(name: str, value: Tensor, weight: Weight, way: Route) -> Tensor:
    """A tensor that the adapter holds whole; on the way back, what the slice has not comes from the base."""
    import torch

    if way.to == "slice":
        for dim, values in weight.edit.indices.items():
            value = value.index_select(dim, torch.from_numpy(values))
        return value
    if not weight.edit.indices:
        return value
    entry = None if way.base is None else way.base.tensors.get(weight.name or _tied_table(way.plan))
    if entry is None:
        raise PlanError(
            f"the adapter holds {name} whole, and the slice has not all of it", "name the original: --base MODEL"
        )
    if len(weight.edit.indices) != 1:
        raise PlanError(f"{name} is sliced along two dimensions, and a whole table in an adapter cannot follow that")
    full = torch.from_numpy(float_rows(entry, np.arange(entry.shape[0]))).to(value.dtype)
    ((dim, _),) = weight.edit.indices.items()
    place = _distinct(name, value, dim, weight, dim, way)
    return full.index_copy(dim, torch.from_numpy(place.target), value.index_select(dim, torch.from_numpy(place.taken)))


def _tied_table(plan: SlicePlan) -> str:
    return next(name for name, tensor in plan.tensors.items() if tensor.axes and tensor.axes[0] == "vocab")


def _moved(name: str, value: Tensor, at: int, weight: Weight, dim: int, way: Route) -> Tensor:
    """A factor's entries gathered for the slice, or put back among zeros.

    Example  indices (1, 3) of 4: (a, b) on the way back becomes (0, a, 0, b)
    """
    import torch

    if way.to == "slice":
        return value.index_select(at, torch.from_numpy(weight.edit.indices[dim]))
    place = _distinct(name, value, at, weight, dim, way)
    shape = list(value.shape)
    shape[at] = weight.shape[dim]
    taken = value.index_select(at, torch.from_numpy(place.taken))
    return torch.zeros(shape, dtype=value.dtype).index_copy(at, torch.from_numpy(place.target), taken)


def _distinct(name: str, value: Tensor, at: int, weight: Weight, dim: int, way: Route) -> Placement:
    """Where each entry goes; copies of a key-value head must have been trained alike, padding rows are left behind."""
    import torch

    values = weight.edit.indices[dim]
    if weight.axes[dim] in VOCABULARY_AXES:
        values = values[: len(way.plan.kept)]
        return Placement(np.arange(len(values), dtype=np.int64), values)
    target, taken, inverse = np.unique(values, return_index=True, return_inverse=True)
    if len(target) != len(values):
        first = torch.from_numpy(taken[inverse])
        if not torch.equal(value.index_select(at, first), value):
            raise PlanError(
                f"{name}: the slice holds copies of a key-value head, and training made them differ",
                "merge the adapter into the slice and restore that",
            )
    return Placement(taken.astype(np.int64), target)


def carry_tokens(name: str, value: Tensor, ids: list[int], way: Route) -> tuple[Tensor, list[int], list[int]]:
    """Rows of trained tokens.

    value    (tokens, hidden), any float type, which the result keeps
    ids      their ids on this side
    Returns  rows that are carried, their ids on the other side, and the ids that are not carried
    """
    import torch

    if len(ids) != value.shape[0]:
        raise PlanError(f"{name} has {value.shape[0]} rows, and `trainable_token_indices` names {len(ids)} ids")
    kept = way.plan.kept.tolist()
    other = {old: new for new, old in enumerate(kept)} if way.to == "slice" else dict(enumerate(kept))
    rows = [at for at, token in enumerate(ids) if token in other]
    gone = [token for token in ids if token not in other]
    return value.index_select(0, torch.tensor(rows, dtype=torch.long)), [other[ids[at]] for at in rows], gone
