"""Move a LoRA between a model and its slice, through the maps of vocabulary, layers, heads and neurons.

What each tensor becomes is adapter_tensors.py's business, the settings adapter_config.py's. What cannot be carried is named.

Source of the files' layout: peft, `adapter_config.json` and the names in `adapter_model.safetensors`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import PlanError
from langslice.files.safetensors_header import TensorEntry
from langslice.model.adapter_names import FACTORS
from langslice.model.checkpoint import Checkpoint, Shard, open_checkpoint, read_json_object
from langslice.options import taking
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.planning.tensors import tensor_edits
from langslice.restoration.adapter_config import carried_config, refuse_unknown
from langslice.restoration.adapter_tensors import (  # fmt: skip
    TOKENS,
    Carried,
    Route,
    Weight,
    carry_tensor,
    carry_tokens,
    checked,
    find_tensor,
    parameter_of,
    route,
    split_name,
)
from langslice.restoration.options import DIRECTIONS, AdapterOptions
from langslice.verification.file_names import FILE_NAME
from langslice.verification.record import read_document, read_plan_at
from langslice.writing.shards import staging_folder

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
RECORD = "carried_adapter.json"
_CARRIED_FILES = ("README.md", "LICENSE", "NOTICE", "*.jinja")


@dataclass(frozen=True)
class AdapterResult:
    """What `carry_adapter` made.

    out          the folder
    to           "slice" or "original"
    tensors      how many it holds
    not_carried  tensor, token id or file of the adapter -> why it is not in the output
    """

    out: Path
    to: str
    tensors: int
    not_carried: Mapping[str, str]


@dataclass(frozen=True)
class _Contents:
    """What the carried adapter holds."""

    tensors: Mapping[str, Tensor]
    modules: Mapping[str, str]
    token_ids: Mapping[str, list[int]]
    not_carried: Mapping[str, str]


@taking(AdapterOptions)
def carry_adapter(
    adapter: str | Path, out: str | Path, *, options: AdapterOptions, overwrite: bool = False
) -> AdapterResult:
    """Write the adapter that does to the slice what this one does to the original, or the other way round.

    adapter  folder with adapter_config.json and adapter_model.safetensors (or .bin), as peft saves it
    options  see AdapterOptions; `base` is needed where the adapter holds whole tables on the way back, and for a bare plan
             of fewer layers, heads or neurons
    Raises   PlanError that names the tensor or setting which has no counterpart
    """
    folder, out = Path(adapter), Path(out)
    config = _read_config(folder)
    made, place = read_plan_at(Path(options.plan))
    if made.extension:
        raise PlanError(
            f"the slice has {len(made.extension):,} new tokens, and an adapter has nothing for them that could be carried",
            "merge the adapter into the model that it was trained on",
        )
    original = None if options.base is None else open_checkpoint(options.base)
    weights = _weights(made, place, original)
    tensors = _read_tensors(folder)
    way = route(
        _checked_direction(options.to, tensors, weights) or _direction(config, tensors, weights, made, place), made, weights,
        flipped=bool(config.get("fan_in_fan_out")), base=original,
    )  # fmt: skip
    contents = _carry(tensors, config, way)
    new_config = carried_config(
        config,
        contents.modules,
        {
            split_name(name)[0]: value.shape[0]
            for name, value in contents.tensors.items()
            if name.endswith((".lora_A.weight", ".lora_embedding_A"))
        },
        contents.token_ids,
        str(place) if way.to == "slice" else made.model,
        renumbered=any(weight.edit.action == "drop" or weight.edit.name for weight in weights),
    )
    not_carried = {**contents.not_carried, **_stale_files(folder)}
    with staging_folder(out, source=folder, overwrite=overwrite) as staging:
        _write(staging, folder, new_config, contents, way, not_carried)
    return AdapterResult(out, way.to, len(contents.tensors), not_carried)


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        found = "no such folder" if not folder.is_dir() else f"there is no {CONFIG} in it"
        raise PlanError(f"{folder} is not an adapter: {found}", "name a folder that peft saved an adapter to")
    config = read_json_object(folder / CONFIG, "peft writes one")
    refuse_unknown(config, folder / CONFIG)
    return config


def _weights(plan: SlicePlan, place: Path, original: Checkpoint | None) -> list[Weight]:
    """Every tensor of the original with what the slice made of it."""
    if plan.structure is not None and plan.structure.hidden:
        raise PlanError(
            "an adapter cannot be carried between a model and a slice with fewer hidden dimensions",
            "train it on the slice",
        )
    config: Any = None
    if original is None and (place / FILE_NAME).is_file():
        source = read_document(place / FILE_NAME).get("source")
        config = source.get("config") if isinstance(source, dict) else None
        if not isinstance(config, dict):
            raise PlanError(
                f"{place / FILE_NAME}: `source.config` must be an object, found {type(config).__name__}",
                "the file was edited; name the original: --base MODEL",
            )
    if original is None and config is None:
        if plan.structure is not None:
            raise PlanError(
                "the plan alone does not say how heads and neurons lie in the original's weights",
                "name the original: --base MODEL",
            )
        config = {"model_type": plan.model_type}
    edits = tensor_edits(plan, Source(original or _imagined(plan, config)))
    return [Weight(name, plan.tensors[name].shape, plan.tensors[name].axes or (), edit) for name, edit in edits.items()]


def _imagined(plan: SlicePlan, config: dict[str, Any]) -> Checkpoint:
    """The original as the plan describes it: names and shapes, without bytes."""
    nowhere = Path("nowhere")
    entries = tuple(TensorEntry(name, "F32", tensor.shape, nowhere, 0, 0) for name, tensor in plan.tensors.items())
    return Checkpoint(nowhere, nowhere, plan.model, None, config, (Shard("", nowhere, "safetensors", entries),))


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (folder / WEIGHTS).is_file():
            return checked(load_file(folder / WEIGHTS), folder / WEIGHTS)
        if (folder / PICKLE).is_file():
            return checked(torch.load(folder / PICKLE, weights_only=True, map_location="cpu"), folder / PICKLE)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise PlanError(f"the weights in {folder} cannot be read: {error}", "save the adapter again") from error
    raise PlanError(f"{folder} has neither {WEIGHTS} nor {PICKLE}", "save the adapter with peft's save_pretrained")


def _checked_direction(to: str | None, tensors: Mapping[str, Tensor], weights: Sequence[Weight]) -> str | None:
    """The direction that was asked for, when the adapter fits the side that it is to leave.

    Raises   PlanError with the sizes of both, as of an adapter whose base was given more rows
    """
    if to is None:
        return None
    side = "original" if to == "slice" else "slice"
    misfit = _misfit(side, tensors, weights)
    if misfit:
        raise PlanError(
            f"the adapter does not fit the {side}: {misfit}",
            "was its base given more tokens, or is this the plan of another slice?",
        )
    return to


def _direction(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: Sequence[Weight], plan: SlicePlan, place: Path
) -> str:
    """Which way the adapter has to go: away from the side whose shapes, or else whose name, it has."""
    misfits = {side: _misfit(side, tensors, weights) for side in DIRECTIONS}
    fits = [side for side in DIRECTIONS if not misfits[side]]
    named = str(config.get("base_model_name_or_path") or "")
    if len(fits) == 2 and named:
        if _same_place(named, place):
            fits = ["slice"]
        elif named == plan.model or _same_place(named, plan.model):
            fits = ["original"]
    if len(fits) == 1:
        return "original" if fits[0] == "slice" else "slice"
    what = "fits the original and the slice" if fits else "fits neither the original nor the slice"
    why = "" if fits else f"\n  original: {misfits['original']}\n  slice: {misfits['slice']}"
    raise PlanError(
        f"the adapter {what}, and says that it belongs to {named or 'no model'}{why}",
        "say where it shall go: --to slice or --to original"
        if fits
        else "was its base given more tokens, or is this the plan of another slice?",
    )


def _same_place(one: str, other: str | Path) -> bool:
    try:
        return Path(one).resolve() == Path(other).resolve()
    except (OSError, ValueError, RuntimeError):  # what is no path at all is not this one
        return False


def _misfit(side: str, tensors: Mapping[str, Tensor], weights: Sequence[Weight]) -> str:
    """The first factor of a layer that has no weight of its size on one side, with both sizes; "" when all have."""
    shapes = {}
    for weight in weights:
        if side == "original":
            shapes[weight.name] = weight.shape
        elif weight.edit.action != "drop":
            shapes[weight.new_name] = weight.new_shape
    for name, value in tensors.items():
        module, ending = split_name(name)
        found = find_tensor(module, parameter_of(ending), shapes)
        if found is None:
            if ending in FACTORS and re.search(r"\.\d+\.", module):
                return f"{module} is not there"
            continue
        sizes = (
            [size for size, along in zip(value.shape, FACTORS[ending], strict=True) if along != "rank"]
            if ending in FACTORS
            else list(value.shape)
        )
        odd = [size for size in sizes if size not in shapes[found]]
        if ending != TOKENS and odd:
            return f"{name} is {_product(value.shape)}, {found} is {_product(shapes[found])}"
    return ""


def _product(shape: Sequence[int]) -> str:
    return " × ".join(f"{size:,}" for size in shape)


def _carry(tensors: Mapping[str, Tensor], config: Mapping[str, Any], way: Route) -> _Contents:
    """Every tensor's counterpart, or the reason why it has none."""
    carried: dict[str, Tensor] = {}
    modules: dict[str, str] = {}
    token_ids: dict[str, list[int]] = {}
    not_carried: dict[str, str] = {}
    for name, value in tensors.items():
        if name.endswith(TOKENS):
            key, ids = _trained_tokens(split_name(name)[0], config)
            carried[name], token_ids[key], gone = carry_tokens(name, value, ids, way)
            not_carried |= {f"token {token} of {name}": "the slice does not keep it" for token in gone}
            continue
        found = carry_tensor(name, value, way)
        if isinstance(found, Carried):
            carried[found.name] = found.value
            modules[found.modules[0]] = found.modules[1]
        else:
            not_carried[name] = found
    if not any(".lora_" in name or (name.endswith(TOKENS) and len(value)) for name, value in carried.items()):
        raise PlanError("nothing of this adapter can be carried: the slice has none of what it changes")
    return _Contents(carried, modules, token_ids, not_carried)


def _trained_tokens(module: str, config: Mapping[str, Any]) -> tuple[str, list[int]]:
    """Key of `trainable_token_indices` that means a module, and its ids; a plain list means the input embeddings."""
    given = config.get("trainable_token_indices")
    if isinstance(given, list):
        return "", given
    for key, ids in (given or {}).items():
        if module == key or module.endswith(f".{key}"):
            return key, ids
    raise PlanError(f"the adapter trains tokens of {module}, which `trainable_token_indices` does not name")


def _stale_files(folder: Path) -> dict[str, str]:
    """Files other than the adapter's weights that belong to its old base or to its training."""
    return {
        path.name: "belongs to the adapter's old base or its training"
        for path in sorted(folder.iterdir())
        if path.name not in (CONFIG, WEIGHTS, PICKLE, RECORD) and not any(path.match(one) for one in _CARRIED_FILES)
    }


def _write(
    staging: Path,
    folder: Path,
    config: Mapping[str, Any],
    contents: _Contents,
    way: Route,
    not_carried: Mapping[str, str],
) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in contents.tensors.items()}
    save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
    (staging / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for pattern in _CARRIED_FILES:
        for path in folder.glob(pattern):
            shutil.copyfile(path, staging / path.name)
    record = {
        "format": "langslice-adapter/1",
        "to": way.to,
        "plan": {"model": way.plan.model, "fingerprint": way.plan.fingerprint, "tokens": len(way.plan.kept)},
        "modules": dict(contents.modules),
        "not_carried": dict(not_carried),
    }
    (staging / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
