"""What weight pruning did, for people and for slice.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from langslice.sparsity.request import SparsityRequest


@dataclass(frozen=True)
class ExpertSparsity:
    """One expert's matrix in a tensor that holds those of several; fields as in TensorSparsity."""

    expert: int
    asked: float
    zeros: int
    reached: bool = True


@dataclass(frozen=True)
class TensorSparsity:
    """One pruned tensor.

    asked    share that was to become zero; of a tensor of several experts the mean over them
    zeros    elements that are zero now, those that already were included
    size     elements
    reached  whether the calibration data sent tokens to it; False only for experts, whose weights then went by magnitude
    experts  of a tensor that holds the matrices of several experts, each; one that was left as it was has nothing asked
    """

    shape: tuple[int, ...]
    asked: float
    zeros: int
    size: int
    reached: bool = True
    experts: tuple[ExpertSparsity, ...] = ()

    @property
    def achieved(self) -> float:
        """Share of the elements that are zero."""
        return self.zeros / self.size


@dataclass(frozen=True)
class SparsityReport:
    """What `sparsify` did.

    tensors        name on disk -> what happened to it; every other tensor is as it was
    layers         blocks pruned, in the order in which they were reached
    resumed        how many of these an earlier run had finished
    prompts        condition ("keep", "avoid") -> number of calibration prompts
    tokens         condition -> tokens that were counted
    notes          what a user should know: towers that text does not reach, calibration prompts that were truncated
    """

    request: SparsityRequest
    tensors: Mapping[str, TensorSparsity]
    layers: tuple[str, ...]
    resumed: int
    prompts: Mapping[str, int]
    tokens: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def zeros(self) -> int:
        """Zero elements of all pruned tensors."""
        return sum(tensor.zeros for tensor in self.tensors.values())

    @property
    def size(self) -> int:
        """Elements of all pruned tensors."""
        return sum(tensor.size for tensor in self.tensors.values())

    def to_json(self) -> dict[str, Any]:
        """Everything, for slice.json."""
        return {
            "request": self.request.to_json(),
            "sparsity": self.zeros / self.size,
            "prompts": dict(self.prompts),
            "tokens": dict(self.tokens),
            "layers": list(self.layers),
            "tensors": {name: {**asdict(item), "achieved": item.achieved} for name, item in self.tensors.items()},
            "notes": list(self.notes),
        }
