"""From what was done to each matrix to the report: by tensor on disk, of which some hold the matrices of several experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from langslice.demonstrations.tokens import Prompt
from langslice.files.safetensors_header import TensorEntry
from langslice.sparsity.experts import expert_path, part_of, whole_of
from langslice.sparsity.journal import Journal
from langslice.sparsity.report import ExpertSparsity, SparsityReport, TensorSparsity
from langslice.sparsity.request import SparsityRequest
from langslice.sparsity.weight_bytes import count_zeros


def make_report(
    tensors: Mapping[str, TensorEntry],
    request: SparsityRequest,
    prompts: Sequence[Prompt],
    journal: Journal,
    missed: Sequence[str],
    resumed: int,
) -> SparsityReport:
    """What a run did.

    tensors   of the pruned checkpoint, by name
    missed    blocks that were to be pruned and were not reached
    resumed   how many blocks an earlier run had finished
    """
    notes = [f"not pruned, because text does not reach them: {', '.join(missed)}"] if missed else []
    idle = [name for name, tensor in journal.tensors.items() if not tensor.reached]
    if idle:
        experts = sorted(dict.fromkeys(_expert(name) for name in idle))
        notes.append(
            f"pruned by magnitude, because the calibration data sends no token to them: {len(experts)} experts, "
            f"{', '.join(experts)}"
        )
    counted: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for prompt in prompts:
        counted[prompt.condition] = counted.get(prompt.condition, 0) + 1
        tokens[prompt.condition] = tokens.get(prompt.condition, 0) + sum(1 for _ in prompt.all_tokens())
    pruned = _by_tensor(tensors, journal.tensors)
    return SparsityReport(request, pruned, tuple(journal.finished), resumed, counted, tokens, tuple(notes))


def _by_tensor(tensors: Mapping[str, TensorEntry], done: Mapping[str, TensorSparsity]) -> dict[str, TensorSparsity]:
    """Matrices of several experts in one entry each for the tensor that holds them."""
    found: dict[str, TensorSparsity] = {}
    parts: dict[str, dict[int, TensorSparsity]] = {}
    for name, matrix in done.items():
        whole, number = whole_of(name)
        if number is None:
            found[name] = matrix
        else:
            parts.setdefault(whole, {})[number] = matrix
    for name, matrices in parts.items():
        found[name] = _added(tensors[name], matrices)
    return found


def _added(entry: TensorEntry, matrices: Mapping[int, TensorSparsity]) -> TensorSparsity:
    """A tensor of several experts, of which these were pruned."""
    count = prod(entry.shape) // next(iter(matrices.values())).size
    experts = tuple(
        ExpertSparsity(number, one.asked, one.zeros, one.reached)
        if (one := matrices.get(number))
        else ExpertSparsity(number, 0.0, count_zeros(part_of(entry, number, count)))
        for number in range(count)
    )
    asked, zeros = sum(one.asked for one in experts) / count, sum(one.zeros for one in experts)
    reached = any(one.reached for one in matrices.values())
    return TensorSparsity(entry.shape, asked, zeros, prod(entry.shape), reached, experts)


def _expert(matrix: str) -> str:
    """The expert that a matrix belongs to, by its name on disk.

    Example   _expert("mlp.experts.down_proj[3]") == _expert("mlp.experts.3.down_proj.weight") == "mlp.experts.3"
    """
    whole, number = whole_of(matrix)
    stem = whole.removesuffix(".weight").rpartition(".")[0]
    return stem if number is None else expert_path(stem, number)
