"""The unmodified model of a checkpoint without its weights: loaded and released one block at a time.

Everything outside the blocks (norms, positions, projections) is loaded once, except what is as long as the vocabulary:
of embeddings only the rows that the prompts use are read, and the output head is never reached. Computation is in float32
whatever the checkpoint stores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import TensorEntry
from langslice.model.axes import find_vocabulary_size
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.families import family_of
from langslice.model.layer_fields import shares_layers
from langslice.model.quantisation import quantisation
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.empty_model import compute_positions, empty_model, position_tables
from langslice.sparsity.experts import ExpertMatrix, holds_experts
from langslice.sparsity.parameter_locations import find_places, vocabulary_names
from langslice.sparsity.weight_bytes import FLOATS, read_rows, read_tensor


class _Spare:
    """Memory of a released block that waits for the next one, which is mostly of the same shapes.

    Pages that are given back and asked for anew cost as much as some hundred tokens' products.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[int, ...], list[Any]] = {}

    def add(self, tensors: Iterable[Any]) -> None:
        import torch

        for tensor in tensors:
            if tensor.dtype == torch.float32 and tensor.is_contiguous():
                self._tensors.setdefault(tuple(tensor.shape), []).append(tensor)

    def take(self, shape: tuple[int, ...]) -> Any | None:
        found = self._tensors.get(shape)
        return found.pop() if found else None

    def keep_only(self, shapes: Iterable[tuple[int, ...]]) -> None:
        wanted = Counter(shapes)
        self._tensors = {shape: found[: wanted[shape]] for shape, found in self._tensors.items() if wanted[shape]}


class Skeleton:
    """An unmodified model whose weights come and go."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint: Checkpoint = open_checkpoint(folder)
        refuse_what_cannot_stream(self.checkpoint)
        self.model = empty_model(self.checkpoint)
        self._entries, self._merged = find_places(self.model, self.checkpoint)
        self._vocabulary = vocabulary_names(self.checkpoint)
        self._spare = _Spare()
        self._lasting = tuple(position_tables(self.model))
        self.blocks = tuple(self._find_blocks())
        if not self.blocks:
            raise CheckpointError(
                f"no blocks found in {type(self.model).__name__}\n  expected a list of equal layers",
                "this architecture cannot be walked block by block",
            )

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the model reads with one stack and writes with another."""
        return bool(getattr(self.model.config, "is_encoder_decoder", False))

    def load_surroundings(self, token_ids: Iterable[int]) -> None:
        """Load everything outside the blocks, and of the vocabulary's tables the rows of these tokens."""
        used = np.unique(np.fromiter(token_ids, dtype=np.int64))
        tables = set(self._tables())
        inside = {id(module) for block in self.blocks for module in block.module.modules()}
        for path, module in self.model.named_modules():
            if id(module) in inside:
                continue
            if path in tables:
                self._load_rows(path, module, used)
            else:
                self._load_own(path, module, required=False)

    def load(self, block: Block) -> None:
        """Load a block's weights as float32.

        Raises  CheckpointError when a weight is not in the checkpoint
        """
        self._spare.keep_only([tuple(parameter.shape) for parameter in block.module.parameters()])
        for path, module in block.module.named_modules():
            self._load_own(f"{block.name}.{path}" if path else block.name, module, required=True)

    def release(self, block: Block) -> None:
        """Give a block's memory to the next one."""
        weights = [parameter.data for parameter in block.module.parameters() if not parameter.is_meta]
        block.module.to("meta")
        for part in (part for parts in self._merged_in(block).values() for part in parts):
            part.module.to("meta")  # a view of what was just handed on
        self._spare.add(weights)
        for path, module in self._lasting:
            if path.startswith(f"{block.name}."):
                self._load_own(path, module, required=True)

    def unread_experts(self) -> Iterator[tuple[str, TensorEntry]]:
        """Tensors of several experts, by the name of the parameter, in a form that is not read: they are not pruned."""
        family = family_of(self.checkpoint.config)
        for block in self.blocks:
            linear = {f"{one.name}.weight" for one in block.linears}
            for path, parameter in block.module.named_parameters():
                name = f"{block.name}.{path}"
                entry = self._entry(name)
                is_known = entry is None or name in linear or name in self._merged
                if is_known or parameter.ndim < 2 or path.endswith("bias"):
                    continue
                if entry is not None and holds_experts(family, path, entry):
                    yield name, entry

    def _load_own(self, path: str, module: Any, *, required: bool) -> None:
        import torch

        for leaf, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            name = f"{path}.{leaf}" if path else leaf
            entry = self._entry(name)
            if name in self._merged:
                self._load_merged(module, leaf, self._merged[name])
                continue
            if entry is not None and entry.name in self._vocabulary:
                continue
            if entry is None or entry.shape != tuple(parameter.shape):
                if entry is None and compute_positions(module):
                    continue
                if required:
                    raise _misplaced(f"{path}.{leaf}", tuple(parameter.shape), entry)
                continue
            weight = read_tensor(entry, self._spare.take(entry.shape))
            module._parameters[leaf] = torch.nn.Parameter(weight, requires_grad=False)
        for leaf, buffer in list(module._buffers.items()):
            entry = self._entry(f"{path}.{leaf}" if path else leaf)
            if buffer is not None and entry is not None and entry.shape == tuple(buffer.shape):
                module._buffers[leaf] = read_tensor(entry).to(buffer.dtype)

    def _load_merged(self, module: Any, leaf: str, parts: Sequence[ExpertMatrix]) -> None:
        """Read the matrices of all experts into one parameter."""
        import torch

        shape = tuple(module._parameters[leaf].shape)
        merged = self._spare.take(shape)
        if parts[0].swapped:
            merged = torch.empty(shape[0], shape[2], shape[1]).transpose(1, 2)
        elif merged is None:
            merged = torch.empty(shape)
        module._parameters[leaf] = torch.nn.Parameter(merged, requires_grad=False)
        for part in parts:
            weight = read_tensor(part.entry, part.within(merged))
            part.module.weight = torch.nn.Parameter(weight, requires_grad=False)

    def _merged_in(self, block: Block) -> dict[str, tuple[ExpertMatrix, ...]]:
        return {name: parts for name, parts in self._merged.items() if name.startswith(f"{block.name}.")}

    def _tables(self) -> Iterator[str]:
        """Embeddings that tokens are looked up in."""
        import torch

        rows = find_vocabulary_size(family_of(self.checkpoint.config), self.checkpoint.shapes)
        for path, module in self.model.named_modules():
            if isinstance(module, torch.nn.Embedding) and module.num_embeddings == rows:
                yield path

    def _load_rows(self, path: str, module: Any, used: np.ndarray) -> None:
        """Put only the used rows into an embedding, and translate the ids that it is asked for."""
        import torch

        rows = module.num_embeddings
        entry = self._entry(f"{path}.weight") or self._tied_table()
        if entry.shape[0] != rows or (used.size and int(used[-1]) >= rows):
            raise CheckpointError(
                f"token {int(used[-1])} lies beyond the {entry.shape[0]} rows of {entry.name}",
                "the tokenizer and the model do not belong together",
            )
        weight = read_rows(entry, used)
        module._parameters["weight"] = torch.nn.Parameter(weight, requires_grad=False)
        module.padding_idx = None
        known = torch.from_numpy(used)
        module.register_forward_pre_hook(lambda _, given: (torch.searchsorted(known, given[0]), *given[1:]))

    def _tied_table(self) -> TensorEntry:
        """The one table of a model whose embeddings are tied and stored under another name."""
        found = [self.checkpoint.tensors[name] for name in self._vocabulary]
        tables = [entry for entry in found if len(entry.shape) == 2 and entry.shape[0] > 1]
        if not tables:
            raise CheckpointError("no embedding table found\n  expected one tensor along the vocabulary")
        return min(tables, key=lambda entry: "head" in entry.name)

    def _entry(self, name: str) -> TensorEntry | None:
        return self._entries.get(name)

    def _find_blocks(self) -> Iterator[Block]:
        import torch

        def lists(module: Any, path: str) -> Iterator[tuple[str, Any]]:
            for leaf, child in module.named_children():
                full = f"{path}.{leaf}" if path else leaf
                if isinstance(child, torch.nn.ModuleList):
                    yield full, child
                else:
                    yield from lists(child, full)

        for stack, modules in lists(self.model, ""):
            for index, module in enumerate(modules):
                block = Block(stack, index, module, tuple(self._linears(f"{stack}.{index}", module)))
                experts = tuple(self._experts(block))
                if block.linears or experts:
                    yield replace(block, linears=block.linears + experts)

    def _experts(self, block: Block) -> Iterator[Linear]:
        """Layers of experts that lie in one parameter of this block, one expert after another."""
        parts = [part for found in self._merged_in(block).values() for part in found]
        for part in sorted(parts, key=lambda part: part.expert):
            if part.entry.dtype not in FLOATS:
                raise _quantised(self.checkpoint, f"{part.entry.name} is stored as {part.entry.dtype}")
            yield Linear(part.name, part.module, part.entry, part.transposed, part.first)

    def _linears(self, block: str, module: Any) -> Iterator[Linear]:
        import torch
        from transformers.pytorch_utils import Conv1D

        for path, child in module.named_modules():
            if not isinstance(child, torch.nn.Linear | Conv1D) or not path:
                continue
            entry = self._entry(f"{block}.{path}.weight")
            if entry is None or len(entry.shape) != 2:
                raise _misplaced(f"{block}.{path}.weight", tuple(child.weight.shape), entry)
            if entry.dtype not in FLOATS:
                raise _quantised(self.checkpoint, f"{entry.name} is stored as {entry.dtype}")
            yield Linear(f"{block}.{path}", child, entry, isinstance(child, Conv1D))


def refuse_what_cannot_stream(checkpoint: Checkpoint) -> None:
    """Refuse a model whose weights cannot be pruned block by block, by its configuration alone.

    Raises   CheckpointError
    """
    config: Mapping[str, Any] = checkpoint.config
    texts = [config, *(value for value in config.values() if isinstance(value, dict))]
    method = quantisation(config)
    if method:
        raise _quantised(checkpoint, f"config.json has a quantization_config ({method})")
    shared = [name for text in texts for name in ("num_kv_shared_layers",) if text.get(name)]
    if shared or any(shares_layers(text) for text in texts):
        why = "its blocks share one set of weights" if not shared else "its later blocks read keys of earlier ones"
        raise CheckpointError(
            f"model type `{config.get('model_type')}` cannot be pruned block by block: {why}",
            "choose another model; nothing was written",
        )


def _quantised(checkpoint: Checkpoint, why: str) -> CheckpointError:
    return CheckpointError(
        f"quantised weights cannot be pruned\n  {checkpoint.model_folder}\n  {why}",
        "prune the full-precision model, then quantise the result",
    )


def _misplaced(name: str, shape: tuple[int, ...], entry: TensorEntry | None) -> CheckpointError:
    found = "no such tensor" if entry is None else f"{entry.name} {entry.shape}"
    return CheckpointError(
        f"weight {name} of the unmodified class has no counterpart in the checkpoint\n  expected shape {shape}, found {found}",
        "the checkpoint is incomplete, or stores this weight in a form that is not read here",
    )
