"""The model that is healed: loaded in float32 by its unmodified class, and which of its parameters train."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from langslice.errors import CheckpointError, HealError, UnknownFamilyError, UnknownTensorError
from langslice.model.axes import describe_tensor
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.families import family_of
from langslice.planning.plan import SlicePlan
from langslice.verification.file_names import FILE_NAME
from langslice.verification.record import read_record

# Word of --train -> parts of model/families.py.
PARTS: Final = {
    "embeddings": ("vocabulary",),
    "norms": ("norm",),
    "attention": ("attention",),
    "feed-forward": ("feed-forward", "router"),
    "positions": ("positions",),
}
_FLOATS: Final = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class HealedFolder:
    """The folder that is healed.

    plan  of its slice.json; None where it has none
    """

    folder: Path
    checkpoint: Checkpoint
    plan: SlicePlan | None

    @property
    def is_embedding_model(self) -> bool:
        """Whether it is a sentence-transformers folder."""
        return (self.folder / "modules.json").is_file()


def open_source(model: str | Path) -> HealedFolder:
    """Read a checkpoint and its record, without loading a weight.

    Raises  CheckpointError, PlanError; HealError for quantised weights
    """
    checkpoint = open_checkpoint(model)
    plan = read_record(checkpoint.folder) if (checkpoint.folder / FILE_NAME).is_file() else None
    packed = [tensor for tensor in checkpoint.tensors.values() if tensor.dtype.startswith(("F8", "F4", "F6"))]
    if packed or "quantization_config" in checkpoint.config:
        where = f", {packed[0].name} is {packed[0].dtype}" if packed else ""
        raise HealError(f"the weights are quantised{where}", "heal the model that was quantised")
    return HealedFolder(checkpoint.folder, checkpoint, plan)


def load_student(checkpoint: Checkpoint) -> Any:
    """The unmodified class with the checkpoint's weights in float32, its cache switched off.

    Raises  CheckpointError when transformers has no class for it, or would fill missing weights with random numbers
    """
    import torch
    import transformers

    from langslice.model.transformers_classes import dtype_option, model_class, quiet_transformers

    folder = checkpoint.model_folder
    stock = model_class(folder)
    if stock is None:
        raise CheckpointError(
            f"{folder}: transformers {transformers.__version__} has no class {checkpoint.config.get('architectures')}",
            "`architectures` in config.json names the class that is trained",
        )
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, info = stock.from_pretrained(folder, output_loading_info=True, **dtype_option(torch.float32))
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise CheckpointError(
                f"{folder}: transformers cannot load it\n  {error}", "run `langslice verify`"
            ) from error
    refuse_missing(info, folder)
    _read_head_bias(model, checkpoint)
    model.config.use_cache = False
    return model


def _read_head_bias(model: Any, checkpoint: Checkpoint) -> None:
    """Read the bias of the output head again: transformers 4.50 loads RoBERTa's as zeros, and reports nothing missing."""
    import torch

    from langslice.sparsity.weight_bytes import read_tensor

    bias: Any = getattr(model.get_output_embeddings(), "bias", None)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter is bias and name in checkpoint.tensors:
            with torch.no_grad():
                parameter.copy_(read_tensor(checkpoint.tensors[name]))


def refuse_missing(info: Any, folder: Path) -> None:
    """Stop when the checkpoint lacks weights: they would be random, and training would hide it."""
    missing = sorted(info["missing_keys"]) + sorted(str(one[0]) for one in info["mismatched_keys"])
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of its class, {missing[0]} for one",
            "transformers would fill them with random numbers; is `architectures` in config.json right?",
        )


def choose_parts(model: Any, config: Any, patterns: Sequence[str]) -> list[str]:
    """Let only some parameters train.

    patterns  "all", words of PARTS, patterns of parameter names; those after "!" are left out again
    Returns   names of the parameters that train
    Raises    HealError for a pattern that matches nothing, and when nothing is left
    """
    named = dict(model.named_parameters())
    parts: dict[str, str] = {}
    chosen: set[str] = set()
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        if wanted in PARTS and not parts:
            parts = _parts_of(named, config)
        found = {name for name in named if _fits(name, wanted, parts)}
        if not found:
            raise HealError(
                f"--train {pattern} matches none of the model's {len(named)} parameters",
                f"words are all, {', '.join(PARTS)}; names are like {next(iter(named))}",
            )
        chosen = chosen - found if pattern.startswith("!") else chosen | found
    if not chosen:
        raise HealError(
            f"--train {','.join(patterns)} leaves nothing to train", "take out a pattern that begins with !"
        )
    for name, parameter in named.items():
        parameter.requires_grad_(name in chosen and parameter.is_floating_point())
    return [name for name in named if name in chosen]


def _fits(name: str, wanted: str, parts: dict[str, str]) -> bool:
    if wanted in PARTS:
        return parts[name] in PARTS[wanted]
    return wanted == "all" or fnmatchcase(name, wanted)


def _parts_of(named: dict[str, Any], config: Any) -> dict[str, str]:
    """Part of each parameter by the table of families.

    Raises  HealError for a model type that the table does not know
    """
    try:
        family = family_of(config.to_dict())
        return {name: describe_tensor(family, name, tuple(one.shape), frozenset()).part for name, one in named.items()}
    except (UnknownFamilyError, UnknownTensorError) as error:
        raise HealError(
            f"the words of --train need a known model type\n  {error.message}",
            'use patterns of names: --train "*norm*"',
        ) from error


def is_float(dtype: str) -> bool:
    """Whether a stored type can be trained."""
    return dtype in _FLOATS
