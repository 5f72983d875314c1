"""Experts that an unmodified class keeps in one tensor, as linear layers of their own: where their weights lie, and what they read.

Some checkpoints store a matrix for each expert (`experts.3.up_proj.weight`), which transformers 5 merges as it loads; others store
those of all experts in one tensor (`experts.gate_up_proj`), as (inputs, outputs) or (outputs, inputs). Either way the class
multiplies a part of one tensor with the tokens that the router sent to the expert. Here each expert's layer is a module whose
weight is a view of that part, and lies on disk as one matrix of consecutive bytes. The unmodified forward runs unchanged;
products.py sees what each expert reads. Earlier versions have a module for each expert, which needs nothing from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langslice.files.safetensors_header import TensorEntry
from langslice.model.axes import Family, describe_tensor
from langslice.model.body import is_routed
from langslice.sparsity.blocks import EXPERT

# How transformers merges matrices: one after another, or two of each expert below each other, and then one after another.
_MERGES = ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)])
# What writes the hidden states among the matrices of an expert, where its class does not say which dimension is read.
_WRITES = re.compile(r"(?:down|output|out|w2|fc2)(?:_|$).*")
_COUNTS = ("num_experts", "moe_num_experts")  # attributes of modules with experts
_PART = re.compile(r"(.*)\[(\d+)\]")


@dataclass(frozen=True)
class ExpertMatrix:
    """One expert's matrix within a parameter that holds those of all.

    name        of the layer, such as "model.layers.0.mlp.experts.3.up_proj"
    entry       the matrix on disk; of a tensor that holds several, the bytes of this one: see `part_of`
    first       its first row within the expert's rows: gate and up projections may lie below each other
    module      a linear layer for it; its weight is set when the parameter is loaded
    transposed  stored as (inputs, outputs)
    swapped     the class has the two dimensions of what is stored the other way round
    """

    name: str
    entry: TensorEntry
    expert: int
    first: int
    module: Any
    transposed: bool = False
    swapped: bool = False

    def within(self, whole: Any) -> Any:
        """Its part of the parameter, in the shape that is stored."""
        if self.swapped:
            return whole[self.expert].T
        if whole.ndim == 2:  # the matrices of all experts below each other
            return whole.view(-1, *self.entry.shape)[self.expert]
        return whole[self.expert, self.first : self.first + self.entry.shape[0]]


def part_of(entry: TensorEntry, number: int, count: int) -> TensorEntry:
    """One of the equal matrices that a tensor holds one after another, named `TENSOR[NUMBER]`.

    count   how many it holds
    """
    size, shape = entry.size_bytes // count, entry.shape[1:]
    if len(entry.shape) == 2:
        shape = (entry.shape[0] // count, entry.shape[1])
    return replace(
        entry, name=f"{entry.name}[{number}]", shape=shape, start=entry.start + number * size, size_bytes=size
    )


def whole_of(name: str) -> tuple[str, int | None]:
    """The tensor that a matrix is part of, and its number there; None for a tensor of its own.

    Example   whole_of("experts.down_proj[3]") == ("experts.down_proj", 3)
    """
    found = _PART.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)


def expert_path(path: str, number: int) -> str:
    """A name for one of the experts that a module holds, as if it were a module of its own.

    Example   expert_path("mlp.experts", 3) == expert_path("mlp", 3) == "mlp.experts.3"
    """
    steps = path.split(".")
    at = next((at for at, step in enumerate(steps) if step.endswith("experts")), None)
    if at is None:
        return f"{path}.experts.{number}"
    return ".".join((*steps[: at + 1], str(number), *steps[at + 1 :]))


def merged_parts(
    model: Any, tensors: Mapping[str, TensorEntry], renamings: Sequence[Any], converters: Sequence[Any]
) -> dict[str, tuple[ExpertMatrix, ...]]:
    """Parameter of the unmodified class -> the matrices that transformers makes it from, where all of them are there and fit.

    renamings, converters  of transformers, for this model
    """
    from transformers.core_model_loading import rename_source_key

    found: dict[str, list[tuple[int, int, str, TensorEntry]]] = {}
    stacks: dict[str, list[tuple[int, TensorEntry]]] = {}
    always: set[str] = set()  # swapped even where the shape would fit
    for name, entry in tensors.items():
        target, pattern = rename_source_key(name, renamings, converters)
        converter = next((step for step in converters if pattern in step.source_patterns), None)
        if converter is None:
            continue
        steps = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
        place, number = converter.source_patterns.index(pattern), EXPERT.search(name)
        if steps in _MERGES and number is not None:
            layer = rename_source_key(name, renamings, [])[0].removesuffix(".weight")
            found.setdefault(target, []).append((int(number.group(1)), place, layer, entry))
        elif steps == [("Concatenate", 1)] or _swaps(converter.operations):
            stacks.setdefault(target, []).append((place, entry))
            always |= set() if getattr(converter.operations[0], "check_dims", True) else {target}
    parts = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        made = _fitted(shape, found.get(name, ())) or _restacked(
            model, name, shape, stacks.get(name, ()), swap=name in always
        )
        if made:
            parts[name] = made
    return parts


def _swaps(operations: Sequence[Any]) -> bool:
    """Whether all that transformers does with a tensor is to swap the two dimensions of each matrix."""
    one = operations[0]
    dims = {getattr(one, "dim0", None), getattr(one, "dim1", None)}
    return len(operations) == 1 and type(one).__name__ == "Transpose" and dims == {1, 2}


def stacked_parts(model: Any, places: Mapping[str, TensorEntry], family: Family) -> dict[str, tuple[ExpertMatrix, ...]]:
    """Parameter -> its matrices, of tensors that hold those of all experts on disk as in the class.

    places  parameter -> tensor of its own
    """
    parts = {}
    for name, parameter in model.named_parameters():
        entry = places.get(name)
        if entry is None or entry.shape != tuple(parameter.shape) or not holds_experts(family, name, entry):
            continue
        made = tuple(_matrices(model, name, entry, entry.shape))
        if made:
            parts[name] = made
    return parts


def holds_experts(family: Family, name: str, entry: TensorEntry) -> bool:
    """Whether a tensor has a matrix, or a vector, for each of several experts."""
    axes = describe_tensor(family, entry.name, entry.shape, frozenset()).axes or ()
    return is_routed(name, axes) or any(step.endswith("experts") for step in name.split(".")[:-1])


def _fitted(shape: tuple[int, ...], matrices: Iterable[tuple[int, int, str, TensorEntry]]) -> tuple[ExpertMatrix, ...]:
    """The matrices in their places of a tensor (experts, outputs, inputs); () where they do not fill it."""
    if len(shape) != 3:
        return ()
    parts: list[ExpertMatrix] = []
    rows: dict[int, int] = {}
    for expert, _, layer, entry in sorted(matrices, key=lambda item: item[:2]):
        if len(entry.shape) != 2 or entry.shape[1] != shape[2]:
            return ()
        parts.append(ExpertMatrix(layer, entry, expert, rows.get(expert, 0), _layer(entry)))
        rows[expert] = rows.get(expert, 0) + entry.shape[0]
    return tuple(parts) if rows == dict.fromkeys(range(shape[0]), shape[1]) else ()


def _restacked(
    model: Any, name: str, shape: tuple[int, ...], stacks: Sequence[tuple[int, TensorEntry]], *, swap: bool
) -> tuple[ExpertMatrix, ...]:
    """The matrices of a parameter that is one stored tensor with two dimensions swapped, or two stored ones below each other.

    swap   whether they are swapped though the shape would fit; otherwise transformers swaps what does not fit
    """
    if len(shape) != 3 or any(len(entry.shape) != 3 for _, entry in stacks):
        return ()
    if len(stacks) == 1:
        entry = stacks[0][1]
        swap = swap or entry.shape != shape
        fits = entry.shape == ((shape[0], shape[2], shape[1]) if swap else shape)
        return tuple(_matrices(model, name, entry, shape, swapped=swap)) if fits else ()
    found: list[tuple[int, int, str, TensorEntry]] = []
    for place, entry in stacks:
        leaf = entry.name.removesuffix(".weight").rpartition(".")[2]
        for one in _matrices(model, name, entry, shape):
            if not one.transposed:
                found.append((one.expert, place, f"{one.name.rpartition('.')[0]}.{leaf}", one.entry))
    return _fitted(shape, found)


def _matrices(
    model: Any, name: str, entry: TensorEntry, shape: tuple[int, ...], *, swapped: bool = False
) -> Iterator[ExpertMatrix]:
    """A tensor's matrices, one for each expert; none where it is not known which of their dimensions is read."""
    path, _, leaf = name.removesuffix(".weight").rpartition(".")
    module = model.get_submodule(name.rpartition(".")[0])
    count = (
        entry.shape[0]
        if len(shape) == 3
        else next((getattr(module, one) for one in _COUNTS if hasattr(module, one)), 0)
    )
    if not count or len(shape) not in (2, 3) or entry.shape[0] % count or "bias" in leaf:
        return
    last = _reads_last(module, leaf, shape[-2:], getattr(model.config.get_text_config(), "hidden_size", None))
    if last is None:
        return
    for number in range(count):
        part = part_of(entry, number, count)
        layer = f"{expert_path(path, number)}.{leaf}"
        yield ExpertMatrix(layer, part, number, 0, _layer(part), last == swapped, swapped)


def _reads_last(module: Any, leaf: str, shape: tuple[int, ...], hidden: int | None) -> bool | None:
    """Whether an expert's matrix, as the class has it, is (outputs, inputs); None where that cannot be told.

    It is proven by the products that the class makes: see products.py.
    """
    told = getattr(module, "is_transposed", None)  # set by transformers, for its own implementations of experts
    if isinstance(told, bool):
        return not told
    along = [dim for dim, size in enumerate(shape) if size == hidden]
    if len(along) != 1:
        return None
    return along[0] == (0 if _WRITES.fullmatch(leaf) else 1)


def _layer(entry: TensorEntry) -> Any:
    import torch

    return torch.nn.Linear(entry.shape[1], entry.shape[0], bias=False, device="meta")
