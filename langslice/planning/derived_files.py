"""Files other than the weights that follow a slice: side weights, files keyed by token, tokenizers of other modules.

Everything is worked out from names and shapes before anything is written, so that what a plan accepts, its slice does.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import PlanError, TokenizerError
from langslice.files.gather_rows import sliced_shape
from langslice.files.safetensors_header import TensorEntry
from langslice.model.adapter_names import FACTORS, LAYER_SETTINGS, ROOT
from langslice.model.anatomy import Anatomy, TensorLocation, find_place
from langslice.model.checkpoint import read_json_object
from langslice.model.folder_kinds import TOKENIZER
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import SideFile
from langslice.planning.side_weights import SideTensors, open_side_weights
from langslice.planning.source import Source
from langslice.planning.tensors import expected_edits
from langslice.planning.token_keys import write_keyed
from langslice.structure.edits import new_rest
from langslice.tokenizer import SourceTokenizer, open_tokenizer, write_tokenizer
from langslice.writing.shards import TensorEdit

_ELSEWHERE = "or --leave-out it and carry it with `langslice adapter` where it is a LoRA"


@dataclass(frozen=True)
class DerivedFileInputs:
    """What files other than the weights need to know of a plan."""

    source: Source
    plan: SlicePlan

    @cached_property
    def along(self) -> dict[int, np.ndarray]:
        """Length of a dimension that runs along the vocabulary -> old rows that stay; {} where all do.

        Returns  values (n,) int64, in the order of the new rows
        """
        if self.plan.keeps_vocabulary:
            return {}
        tokens = len(self.source.tokenizer.tokens)
        found = {tokens: self.plan.kept[self.plan.kept < tokens]}
        per_layer = self.plan.per_layer_new_to_old
        if self.plan.per_layer_rows is not None and per_layer is not None:
            found[self.plan.per_layer_rows] = per_layer
        return {**found, self.plan.rows: self.plan.new_to_old}

    @cached_property
    def other_lengths(self) -> frozenset[int]:
        """Lengths of the model's other axes: a dimension as long as one of them and as the vocabulary could be either."""
        return frozenset(
            size
            for tensor in self.plan.tensors.values()
            for axis, size in zip(tensor.axes or (), tensor.shape, strict=False)
            if "vocab" not in axis
        )

    @cached_property
    def anatomy(self) -> Anatomy | None:
        """Layers of the model; None where none of them is touched."""
        return None if self.plan.structure is None else self.source.anatomy

    @cached_property
    def edits(self) -> dict[str, TensorEdit]:
        """What happens to the main tensors."""
        return expected_edits(self.plan, self.source)


def check_derived(inputs: DerivedFileInputs) -> None:
    """Refuse, before anything is written, what cannot follow the slice.

    Raises   PlanError, TokenizerError
    """
    for file in inputs.source.files:
        if file.action == "weights":
            edits = _edits(inputs, file, open_side_weights(inputs.source.checkpoint.folder / file.name))
            _refuse_without_new(inputs, file, any(_runs_along(inputs, edit) for edit in edits.values()))
        elif file.action == "by token":
            _refuse_without_new(inputs, file, True)
        elif file.action == "tokenizer":
            _twin(inputs, file)


def _runs_along(inputs: DerivedFileInputs, edit: TensorEdit) -> bool:
    """Whether a tensor of another file has a row for each token."""
    return any(indices is along for indices in edit.indices.values() for along in inputs.along.values())


def _refuse_without_new(inputs: DerivedFileInputs, file: SideFile, by_token: bool) -> None:
    """Refuse a file with something for every token: nobody knows what it should have for a new one."""
    if by_token and inputs.plan.extension:
        raise PlanError(
            f"{file.name} has an entry for every token, and there is none for the {len(inputs.plan.extension):,} new tokens",
            hint=f"pass --leave-out {file.name}, and make it anew for the extended vocabulary",
        )


def write_derived(inputs: DerivedFileInputs, out: Path) -> None:
    """Write the files that follow the slice below `out`."""
    for file in inputs.source.files:
        if file.action not in ("weights", "by token", "tokenizer"):
            continue
        source, target = inputs.source.checkpoint.folder / file.name, out / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.action == "tokenizer":
            _write_twin(inputs, file, target.parent)
        elif file.action == "by token":
            write_keyed(source, target, _new_ids(inputs))
        else:
            found = open_side_weights(source)
            _write_weights(source, found, _edits(inputs, file, found), target)


def _new_ids(inputs: DerivedFileInputs) -> dict[str, int | None]:
    """Token -> new id, None for one that goes."""
    new_of = {old: new for new, old in enumerate(inputs.plan.kept.tolist())}
    return {token: new_of.get(old) for old, token in enumerate(inputs.source.tokenizer.tokens) if token is not None}


# ---- weights -------------------------------------------------------------------------------------------------------


def _edits(inputs: DerivedFileInputs, file: SideFile, found: SideTensors) -> dict[str, TensorEdit]:
    """What happens to each tensor of a file.

    Raises   PlanError for a tensor of which that cannot be told
    """
    _check_layer_settings(inputs, file)
    edits = {name: _edit(inputs, file, entry) for name, entry in found.entries.items()}
    if inputs.plan.model_type == TOKENIZER and not any(edit.indices for edit in edits.values()) and inputs.along:
        _refuse_other_rows(inputs, file, found)
    return edits


def _edit(inputs: DerivedFileInputs, file: SideFile, entry: TensorEntry) -> TensorEdit:
    indices: dict[int, np.ndarray] = {}
    _refuse_hidden(inputs, file, entry)
    for dim, length in enumerate(entry.shape):
        if length in inputs.along:
            if length in inputs.other_lengths:
                raise PlanError(
                    f"{file.name}: {entry.name or 'the array'}, shape {entry.shape}: a dimension of {length} may be the "
                    "vocabulary or another axis of the model; nothing was written",
                    hint=f"pass --carry {file.name} or --leave-out {file.name}",
                )
            indices[dim] = inputs.along[length]
    place = None if inputs.anatomy is None else find_place(entry.name.removeprefix(ROOT), inputs.anatomy.body)
    if place is None:
        return TensorEdit("slice" if indices else "keep", indices)
    return _layer_edit(inputs, file, entry, place, indices)


def _refuse_hidden(inputs: DerivedFileInputs, file: SideFile, entry: TensorEntry) -> None:
    kept, anatomy = inputs.plan.structure, inputs.anatomy
    if kept is None or anatomy is None or not kept.hidden:
        return
    size = anatomy.config.get(anatomy.body.residual.size) if anatomy.body.residual is not None else None
    if size in entry.shape:
        raise PlanError(
            f"{file.name}: {entry.name or 'the array'}, shape {entry.shape}: a dimension of {size} may be that of the hidden "
            "states, of which some go; nothing was written",
            hint=f"pass --leave-out {file.name}, or --carry {file.name} if it is not",
        )


def _layer_edit(
    inputs: DerivedFileInputs, file: SideFile, entry: TensorEntry, place: TensorLocation, indices: dict[int, np.ndarray]
) -> TensorEdit:
    """The edit of a tensor that belongs to a numbered layer: that of the weight of the model that it is next to."""
    kept, anatomy = inputs.plan.structure, inputs.anatomy
    if kept is None or anatomy is None:
        return TensorEdit("slice" if indices else "keep", indices)
    main = _main_tensor(anatomy, place)
    touched = place.stack in kept.layers or any(
        place.layer in rows
        for key, rows in (*kept.heads.items(), *kept.neurons.items(), *kept.experts.items())
        if key.split(".")[0] == place.stack
    )
    if not touched:
        return TensorEdit("slice" if indices else "keep", indices)
    edit = inputs.edits.get(main or "")
    if main is None or edit is None or kept.style == "masked":
        raise PlanError(
            f"{file.name}: {entry.name} belongs to layer {place.layer}, which is removed, and no weight of the model says how it "
            "follows; nothing was written",
            hint=f"--leave-out {file.name}, {_ELSEWHERE}",
        )
    if edit.action == "drop":
        return TensorEdit("drop", reason=edit.reason)
    indices |= _beside(inputs, file, entry, main, edit)
    before = entry.name.removesuffix(place.rest).removesuffix(f"{place.layer}.")
    name = f"{before}{kept.new_layer(place.stack, place.layer)}.{new_rest(kept, place)}"
    return TensorEdit("slice" if indices else "keep", indices, name="" if name == entry.name else name)


def _main_tensor(anatomy: Anatomy, place: TensorLocation) -> str | None:
    """The model's tensor of the same module and layer."""
    module = place.rest
    for ending in FACTORS:
        module = module.removesuffix(ending)
    for name, other in anatomy.places.items():
        if (other.stack, other.layer) == (place.stack, place.layer) and other.rest in (place.rest, f"{module}.weight"):
            return name
    return None


def _beside(
    inputs: DerivedFileInputs, file: SideFile, entry: TensorEntry, main: str, edit: TensorEdit
) -> dict[int, np.ndarray]:
    """Indices along the dimensions that a tensor shares with the weight it changes: all of them, or a factor's."""
    shape = inputs.source.checkpoint.shapes[main]
    ending = next((one for one in FACTORS if entry.name.endswith(one)), "")
    if not ending:
        if edit.indices and entry.shape != shape:
            raise PlanError(
                f"{file.name}: {entry.name} has shape {entry.shape}, {main} has {shape} and is sliced; nothing was written",
                hint=f"pass --leave-out {file.name}",
            )
        return dict(edit.indices)
    found: dict[int, np.ndarray] = {}
    for dim, side in enumerate(FACTORS[ending]):
        at = {"out": 0, "in": 1}.get(side)
        if at is None:
            continue
        if entry.shape[dim] != shape[at]:
            at = 1 - at  # stored as (in, out)
        if at in edit.indices:
            if "magnitude" in ending or entry.shape[dim] != shape[at]:
                raise PlanError(f"{file.name}: {entry.name} cannot follow the slice of {main}", hint=_ELSEWHERE)
            found[dim] = edit.indices[at]
    if "magnitude" in ending and edit.indices:
        raise PlanError(
            f"{file.name}: {entry.name} scales rows of {main}, which is sliced; nothing was written", hint=_ELSEWHERE
        )
    return found


def _check_layer_settings(inputs: DerivedFileInputs, file: SideFile) -> None:
    """Refuse a LoRA whose settings count layers that are counted anew."""
    path = (inputs.source.checkpoint.folder / file.name).with_name("adapter_config.json")
    if inputs.plan.structure is None or not inputs.plan.structure.layers or not path.is_file():
        return
    config = read_json_object(path, "")
    named = [name for name in LAYER_SETTINGS if config.get(name)]
    modules = config.get("target_modules")
    if any(re.search(r"\.\d+\.", str(one)) for one in (modules if isinstance(modules, list) else [modules])):
        named.append("target_modules")
    if named:
        raise PlanError(
            f"{file.name}: its adapter_config.json names layers (`{named[0]}`), and layers are pruned; nothing was written",
            hint=f"--leave-out {file.name}, {_ELSEWHERE}",
        )


def _refuse_other_rows(inputs: DerivedFileInputs, file: SideFile, found: SideTensors) -> None:
    """A table next to a tokenizer alone that has another number of rows would silently stay whole."""
    tokens = len(inputs.source.tokenizer.tokens)
    for entry in found.entries.values():
        if len(entry.shape) == 2 and tokens // 2 < entry.shape[0] <= 2 * tokens:
            raise PlanError(
                f"{file.name}: {entry.name or 'the array'} has {entry.shape[0]:,} rows, the tokenizer {tokens:,} tokens; "
                "nothing was written",
                hint="put it into the folder as model.safetensors, where rows without a token are understood, or pass "
                f"--carry {file.name} if it is no table of tokens",
            )


def _write_weights(source: Path, found: SideTensors, edits: Mapping[str, TensorEdit], target: Path) -> None:
    """Write a file of weights in the format that it has, as it is where nothing in it is sliced."""
    if all(edit.action == "keep" and not edit.name for edit in edits.values()):
        shutil.copyfile(source, target)
        return
    if source.suffix == ".npy":
        array = np.load(source, mmap_mode="r", allow_pickle=False)
        for dim, rows in edits[""].indices.items():
            array = np.take(array, rows, axis=dim)
        np.save(target, array)
        return
    import torch
    from safetensors.torch import load_file, save_file

    is_pickle = source.suffix != ".safetensors"
    state: Any = torch.load(source, weights_only=True, map_location="cpu") if is_pickle else load_file(source)
    tensors = {}
    for name, edit in edits.items():
        if edit.action != "drop":
            value = state[name]
            for dim, rows in edit.indices.items():
                value = value.index_select(dim, torch.from_numpy(rows))
            tensors[edit.name or name] = value.contiguous()
            expected = sliced_shape(found.entries[name].shape, edit.indices)
            if tuple(value.shape) != expected:
                raise PlanError(f"{source.name}: {name} became {tuple(value.shape)}, expected {expected}")
    if is_pickle:
        torch.save(tensors, target)
    else:
        save_file(tensors, target, metadata={"format": "pt"})


# ---- tokenizers of other modules -----------------------------------------------------------------------------------


def _twin(inputs: DerivedFileInputs, file: SideFile) -> SourceTokenizer:
    """The tokenizer of another module, which must number the same tokens in the same way.

    Raises   TokenizerError
    """
    folder = (inputs.source.checkpoint.folder / file.name).parent
    twin = open_tokenizer(folder)
    if twin.tokens != inputs.source.tokenizer.tokens:
        at = next(
            (
                at
                for at, pair in enumerate(zip(twin.tokens, inputs.source.tokenizer.tokens, strict=False))
                if pair[0] != pair[1]
            ),
            min(len(twin.tokens), len(inputs.source.tokenizer.tokens)),
        )
        raise TokenizerError(
            f"the tokenizer in {folder} is not that of the model: they differ from id {at} on",
            hint="modules with vocabularies of their own cannot be sliced by one plan",
        )
    return twin


def _write_twin(inputs: DerivedFileInputs, file: SideFile, folder: Path) -> None:
    from langslice.tokenizer import copy_tokenizer

    twin = _twin(inputs, file)
    if inputs.plan.keeps_vocabulary:
        copy_tokenizer(twin, folder)
        return
    size = len(twin.tokens)
    kept = [old for old in inputs.plan.kept.tolist() if old < size]
    write_tokenizer(twin, kept, folder, closed=True, extension=inputs.plan.extension)
