"""What a plan makes of every tensor: keep, slice or drop, and the gathers that do it.

Nothing here reads or writes weights; writing/shards.py carries the edits out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from langslice.errors import PlanError
from langslice.files.gather_rows import sliced_shape
from langslice.model.axes import VOCABULARY_AXES, describe_tensor
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.model.source_tokenizer import vocabulary_rows
from langslice.planning.plan import SlicePlan, TensorPlan
from langslice.planning.sentence_modules import refuse_what_they_fix
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from langslice.model.anatomy import Anatomy


def plan_tensors(
    checkpoint: Checkpoint, *, drop: Mapping[str, str], cut: bool = True
) -> tuple[int, int | None, dict[str, TensorPlan]]:
    """Say for every tensor of the checkpoint whether it is kept, sliced along the vocabulary, or dropped.

    drop     tensor -> reason
    cut      whether the vocabulary is sliced, which quantised tables do not allow
    Returns  rows of the vocabulary, rows of the per-layer table or None, and the plan of each tensor
    Raises   UnknownTensorError, CheckpointError as model/families.py does
    """
    family = family_of(checkpoint.config)
    shapes = checkpoint.shapes
    rows = vocabulary_rows(checkpoint)
    plans: dict[str, TensorPlan] = {}
    per_layer_rows: int | None = None
    for name, shape in shapes.items():
        described = describe_tensor(family, name, shape, frozenset({rows}), cut=cut)
        if described.axes and "per_layer_vocab" in described.axes:
            per_layer_rows = shape[described.axes.index("per_layer_vocab")]
        along = described.axes is not None and not set(described.axes).isdisjoint(VOCABULARY_AXES)
        action = "drop" if name in drop else "slice" if along else "keep"
        plans[name] = TensorPlan(shape, described.part, action, described.axes, drop.get(name, ""))
    return rows, per_layer_rows, plans


def with_structure(plan: SlicePlan, checkpoint: Checkpoint, anatomy: Anatomy | None) -> SlicePlan:
    """The plan with the action and name of every tensor as its own structure and vocabulary ask for."""
    tensors: dict[str, TensorPlan] = {}
    edits = expected_edits(plan, checkpoint, anatomy)
    for name, tensor in plan.tensors.items():
        edit = edits[name]
        reason = tensor.reason if tensor.action == "drop" else edit.reason
        action = "drop" if tensor.action == "drop" else edit.action
        tensors[name] = replace(tensor, action=action, reason=reason, name="" if action == "drop" else edit.name)
    return replace(plan, tensors=tensors)


def tensor_edits(plan: SlicePlan, checkpoint: Checkpoint) -> dict[str, TensorEdit]:
    """Turn the plan into gathers and new names, refusing a plan that does not name exactly the checkpoint's tensors."""
    _check_names(plan, checkpoint)
    anatomy = None
    if plan.structure is not None:
        from langslice.model.anatomy import read_anatomy
        from langslice.structure.output_form import check_kept

        anatomy = read_anatomy(checkpoint)
        check_kept(anatomy, plan.structure)
        refuse_what_they_fix(checkpoint, anatomy, layers=bool(plan.structure.layers))
    edits = expected_edits(plan, checkpoint, anatomy)
    for name, tensor in plan.tensors.items():
        edits[name] = _checked(plan, checkpoint, name, tensor, edits[name])
    return edits


def expected_edits(plan: SlicePlan, checkpoint: Checkpoint, anatomy: Anatomy | None) -> dict[str, TensorEdit]:
    """What vocabulary and structure make of each tensor, whatever the plan says of it."""
    vocabulary: dict[str, np.ndarray] = {} if plan.keeps_vocabulary else {"vocab": plan.new_to_old}
    per_layer = plan.per_layer_new_to_old
    if per_layer is not None and not plan.keeps_vocabulary:
        vocabulary["per_layer_vocab"] = per_layer
    layers: dict[str, TensorEdit] = {}
    if anatomy is not None and plan.structure is not None:
        from langslice.structure.edits import layer_edits

        layers = layer_edits(anatomy, plan.structure, checkpoint.shapes)
    edits: dict[str, TensorEdit] = {}
    for name, tensor in plan.tensors.items():
        layer = layers.get(name, TensorEdit("keep"))
        if layer.action == "drop":
            edits[name] = layer
            continue
        indices = {dim: vocabulary[axis] for dim, axis in enumerate(tensor.axes or ()) if axis in vocabulary}
        indices.update(layer.indices)
        edits[name] = TensorEdit("slice" if indices else "keep", indices, name=layer.name)
    return edits


def _check_names(plan: SlicePlan, checkpoint: Checkpoint) -> None:
    found = checkpoint.tensors
    missing = sorted(set(plan.tensors) - set(found))
    unplanned = sorted(set(found) - set(plan.tensors))
    if missing or unplanned:
        lines = [f"  planned, not in the checkpoint: {name}" for name in missing[:5]]
        lines += [f"  in the checkpoint, not planned: {name}" for name in unplanned[:5]]
        raise PlanError(
            "the plan does not name the tensors of this checkpoint\n" + "\n".join(lines),
            hint="make a new plan for this model with `langslice plan`",
        )
    family = family_of(checkpoint.config)
    for name, tensor in plan.tensors.items():
        axes = describe_tensor(
            family, name, found[name].shape, frozenset({plan.rows}), cut=not plan.keeps_vocabulary
        ).axes
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


def _checked(plan: SlicePlan, checkpoint: Checkpoint, name: str, tensor: TensorPlan, edit: TensorEdit) -> TensorEdit:
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
