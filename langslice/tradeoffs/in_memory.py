"""The slice that a plan describes, as a model in memory: small files in a temporary folder, weights gathered, none written."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from langslice.errors import CheckpointError
from langslice.evaluation.loaded_model import (
    Loaded,
    load_model,
    load_tokenizer,
    loaded,
    model_kind,
    pick_device,
    stock_class,
)
from langslice.model.checkpoint import Checkpoint
from langslice.model.quantisation import quantisation
from langslice.model.transformers_classes import dtype_option, quiet_transformers
from langslice.planning.plan import SlicePlan
from langslice.planning.slice_files import write_files
from langslice.planning.source import Source
from langslice.planning.tensors import tensor_edits
from langslice.scoring.mapped_model import MappedWeights
from langslice.writing.shards import TensorEdit


def load_original(checkpoint: Checkpoint) -> Loaded:
    """The model itself, as its slices are loaded; an encoder as sentence-transformers opens it.

    Raises  CheckpointError for a model that is quantised, that does not read text, or that transformers cannot load
    """
    method = quantisation(checkpoint.config)
    if method:
        raise CheckpointError(
            f"{checkpoint.model_id} is quantised ({method}), and its rows cannot be gathered in memory",
            hint="measure the model that was quantised",
        )
    kind = model_kind(checkpoint.model_folder)
    if kind == "encoder":
        return _encoder(checkpoint.folder)
    original = load_model(checkpoint.model_folder)
    if original.model.main_input_name != "input_ids":
        raise CheckpointError(
            f"{checkpoint.model_id} reads {original.model.main_input_name}, not text",
            hint="what a smaller vocabulary costs is measured on text; slice it by --max-vocab and evaluate it yourself",
        )
    return original


@contextmanager
def slice_in_memory(source: Source, plan: SlicePlan) -> Iterator[Loaded]:
    """The model with the vocabulary of a plan.

    Yields   the same as `load_original`; its folder, which holds no weights of its own, goes afterwards
    """
    checkpoint = source.checkpoint
    with TemporaryDirectory(prefix="langslice-tradeoff-") as name:
        folder = Path(name)
        write_files(source, plan, folder)
        inner = folder / checkpoint.model_folder.relative_to(checkpoint.folder)
        if model_kind(checkpoint.model_folder) == "encoder":
            small = _encoder_with_tokenizer(checkpoint, plan, folder, inner)
        else:
            small = _transformer(source, plan, inner)
        yield small
        del small
        gc.collect()


@contextmanager
def transformer_in_memory(source: Source, plan: SlicePlan) -> Iterator[Loaded]:
    """The slice itself, its layers, heads and neurons as the plan has them; an encoder without what pools its states.

    Yields   the same as `load_model`; its folder, which holds no weights of its own, goes afterwards
    """
    checkpoint = source.checkpoint
    with TemporaryDirectory(prefix="langslice-slice-") as name:
        folder = Path(name)
        write_files(source, plan, folder)
        small = _transformer(source, plan, folder / checkpoint.model_folder.relative_to(checkpoint.folder))
        yield small
        del small
        gc.collect()


def transformer_of(model: Loaded) -> Any:
    """The module of transformers in a model that is loaded; of an encoder, what sentence-transformers wraps."""
    return model.model[0].auto_model if model.kind == "encoder" else model.model


def gathered(checkpoint: Checkpoint, edits: dict[str, TensorEdit]) -> dict[str, Any]:
    """Tensors of the source, memory-mapped, and rows of those that are sliced: name -> tensor."""
    import torch

    found: dict[str, Any] = {}
    for name, tensor in MappedWeights(checkpoint).tensors.items():
        edit = edits[name]
        if edit.action == "drop":
            continue
        for dim, indices in edit.indices.items():
            tensor = torch.index_select(tensor, dim, torch.from_numpy(np.asarray(indices, dtype=np.int64)))
        found[edit.name or name] = tensor
    return found


def _transformer(source: Source, plan: SlicePlan, inner: Path) -> Loaded:
    import torch
    import transformers

    kind = model_kind(inner)
    with quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(inner, trust_remote_code=False)
        tensors = gathered(source.checkpoint, tensor_edits(plan, source))
        model = stock_class(kind, inner).from_pretrained(
            None, config=config, state_dict=tensors, **dtype_option(torch.float32)
        )
    model = model.to(torch.float32).to(pick_device("auto")).eval()
    return loaded(inner, kind, model, load_tokenizer(inner))


def _encoder(folder: Path) -> Loaded:
    from langslice.evaluation.embedding import load_encoder

    return Loaded(folder, "encoder", load_encoder(folder, device=pick_device("auto")), None, None, 0)


def _encoder_with_tokenizer(checkpoint: Checkpoint, plan: SlicePlan, folder: Path, inner: Path) -> Loaded:
    """The source's own modules after the smaller tokenizer, whose ids become the source's: what embeds is the same rows."""
    import torch

    (inner / "config.json").unlink()
    for path in checkpoint.model_folder.iterdir():
        if path.name == "config.json" or path.name.endswith((".safetensors", ".bin", ".index.json")):
            (inner / path.name).unlink(missing_ok=True)
            (inner / path.name).symlink_to(path.resolve())
    encoder = _encoder(folder)
    kept = torch.from_numpy(plan.new_to_old).to(encoder.model.device)

    def renumber(module: Any, inputs: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        return ({**inputs[0], "input_ids": kept[inputs[0]["input_ids"]]}, *inputs[1:])

    encoder.model[0].register_forward_pre_hook(renumber)
    return encoder
