"""What a plan makes of every tensor: keep, slice or drop, and the gathers that do it.

Nothing here reads or writes weights; writing/shards.py carries the edits out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType

import numpy as np

from langslice.errors import PlanError
from langslice.files.gather_rows import sliced_shape
from langslice.files.safetensors_header import TensorEntry
from langslice.model.axes import VOCABULARY_AXES, TensorAxes, refuse_packed
from langslice.planning.plan import SlicePlan, TensorPlan
from langslice.planning.sentence_modules import refuse_what_they_fix
from langslice.planning.source import Source
from langslice.writing.new_rows import RowMean, write_new_rows
from langslice.writing.shards import TensorEdit


def along_vocabulary(tensor: TensorAxes) -> bool:
    """Whether a tensor runs along the vocabulary."""
    return tensor.axes is not None and not set(tensor.axes).isdisjoint(VOCABULARY_AXES)


def plan_tensors(source: Source, *, drop: Mapping[str, str] = MappingProxyType({})) -> dict[str, TensorPlan]:
    """Say for every tensor of the source whether it is kept, sliced along the vocabulary, or dropped.

    drop    tensor -> reason
    Raises  UnknownTensorError, CheckpointError as model/families.py does
    """
    plans: dict[str, TensorPlan] = {}
    for name, tensor in source.axes.items():
        action = "drop" if name in drop else "slice" if along_vocabulary(tensor) else "keep"
        shape = source.checkpoint.shapes[name]
        plans[name] = TensorPlan(shape, tensor.part, action, tensor.axes, drop.get(name, ""))
    return plans


def with_structure(plan: SlicePlan, source: Source) -> SlicePlan:
    """The plan with the action and name of every tensor as its own structure and vocabulary ask for."""
    tensors: dict[str, TensorPlan] = {}
    edits = expected_edits(plan, source)
    for name, tensor in plan.tensors.items():
        edit = edits[name]
        reason = tensor.reason if tensor.action == "drop" else edit.reason
        action = "drop" if tensor.action == "drop" else edit.action
        tensors[name] = replace(tensor, action=action, reason=reason, name="" if action == "drop" else edit.name)
    return replace(plan, tensors=tensors)


def tensor_edits(plan: SlicePlan, source: Source) -> dict[str, TensorEdit]:
    """Turn the plan into gathers and new names, refusing a plan that does not name exactly the source's tensors."""
    _check_names(plan, source)
    if plan.structure is not None:
        from langslice.structure.checked import check_kept

        check_kept(source.anatomy, plan.structure)
        refuse_what_they_fix(source.checkpoint, source.anatomy, layers=bool(plan.structure.layers))
    edits = expected_edits(plan, source)
    for name, tensor in plan.tensors.items():
        edits[name] = _checked(plan, name, tensor, edits[name])
    return edits


def write_extension(plan: SlicePlan, written: Mapping[str, TensorEntry]) -> None:
    """Write the rows of new tokens into the tensors of a slice that hold what was gathered.

    written  the tensors, by their names in the slice
    """
    if not plan.extension:
        return
    new_of = {old: new for new, old in enumerate(plan.kept.tolist())}
    means = plan.averaged_rows.items()
    rows = {row: RowMean(tuple(new_of[old] for old in mean.rows), mean.weights) for row, mean in means}
    for name, tensor in plan.tensors.items():
        if tensor.action != "drop" and "vocab" in (tensor.axes or ()):
            write_new_rows(written[tensor.name or name], (tensor.axes or ()).index("vocab"), rows)


def expected_edits(plan: SlicePlan, source: Source) -> dict[str, TensorEdit]:
    """What vocabulary, hidden size and layers make of each tensor, whatever the plan says of it."""
    along: dict[str, np.ndarray] = {} if plan.keeps_vocabulary else {"vocab": plan.new_to_old}
    per_layer = plan.per_layer_new_to_old
    if per_layer is not None and not plan.keeps_vocabulary:
        along["per_layer_vocab"] = per_layer
    if source.draft is not None and not plan.keeps_vocabulary:
        along["draft_vocab"] = source.draft.kept(plan.id_map().new_of)
    layers: dict[str, TensorEdit] = {}
    if plan.structure is not None:
        from langslice.structure.edits import layer_edits

        layers = layer_edits(source.anatomy, plan.structure, source.checkpoint.shapes)
        if plan.structure.hidden:
            along["hidden"] = np.asarray(plan.structure.hidden, dtype=np.int64)
    edits: dict[str, TensorEdit] = {}
    for name, tensor in plan.tensors.items():
        layer = layers.get(name, TensorEdit("keep"))
        if layer.action == "drop":
            edits[name] = layer
            continue
        indices = {dim: along[axis] for dim, axis in enumerate(tensor.axes or ()) if axis in along}
        indices.update(layer.indices)
        edits[name] = TensorEdit("slice" if indices else "keep", indices, name=layer.name)
    return edits


def _check_names(plan: SlicePlan, source: Source) -> None:
    found = source.checkpoint.tensors
    missing = sorted(set(plan.tensors) - set(found))
    unplanned = sorted(set(found) - set(plan.tensors))
    if missing or unplanned:
        lines = [f"  planned, not in the checkpoint: {name}" for name in missing[:5]]
        lines += [f"  in the checkpoint, not planned: {name}" for name in unplanned[:5]]
        raise PlanError(
            "the plan does not name the tensors of this checkpoint\n" + "\n".join(lines),
            hint="make a new plan for this model with `langslice plan`",
        )
    if plan.rows != source.rows:
        raise PlanError(
            f"the plan says that the vocabulary has {plan.rows} rows, the checkpoint has {source.rows}",
            hint="make a new plan for this model with `langslice plan`",
        )
    if not plan.keeps_vocabulary:
        refuse_packed(source.axes, source.checkpoint.shapes)
    for name, tensor in plan.tensors.items():
        axes = source.axes[name].axes
        if tensor.axes != axes:
            raise PlanError(
                f"the plan says {name} runs along {tensor.axes}, the family's table says {axes}",
                hint="axes are facts of the model: leave them as `langslice plan` wrote them",
            )
        if tensor.shape != found[name].shape:
            raise PlanError(
                f"the plan says {name} has shape {tensor.shape}, the checkpoint says {found[name].shape}",
                hint="make a new plan for this model with `langslice plan`",
            )


def _checked(plan: SlicePlan, name: str, tensor: TensorPlan, edit: TensorEdit) -> TensorEdit:
    """The edit of a tensor, when the plan's own line says the same; a line may also drop a tensor, with a reason."""
    if tensor.action not in {"keep", "slice", "drop"}:
        raise PlanError(f"tensor {name}: action `{tensor.action}` is not keep, slice or drop")
    if tensor.action == "drop":
        if not tensor.reason:
            raise PlanError(f"tensor {name} is dropped without a reason", hint="give it a `reason` in the plan")
        return TensorEdit("drop", reason=tensor.reason)
    if tensor.action != edit.action:
        raise PlanError(
            f"tensor {name}: action `{tensor.action}` does not fit its axes {tensor.axes}",
            hint="tensors along something that is sliced are sliced, those of a layer that goes are dropped, all others kept",
        )
    if (tensor.name or name) != (edit.name or name):
        raise PlanError(
            f"tensor {name}: the plan calls it {tensor.name or name} in the output, its layer's new number asks for "
            f"{edit.name or name}",
            hint="make a new plan with `langslice plan`",
        )
    return edit


def part_sizes(plan: SlicePlan, edits: Mapping[str, TensorEdit]) -> dict[str, tuple[int, int]]:
    """Parameters of each part before and after."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, tensor in plan.tensors.items():
        edit = edits[name]
        after = 0 if edit.action == "drop" else prod(sliced_shape(tensor.shape, edit.indices))
        before, so_far = sizes.get(tensor.part, (0, 0))
        sizes[tensor.part] = before + prod(tensor.shape), so_far + after
    return sizes
