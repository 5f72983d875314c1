"""Blocks of an unmodified model and the linear layers in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from langslice.files.safetensors_header import TensorEntry

EXPERT: Final = re.compile(r"\bexperts\.(\d+)\.")


def is_of_expert(name: str) -> bool:
    """Whether a layer of this name belongs to one of several experts, and reads what a router sends it."""
    return EXPERT.search(name + ".") is not None


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block.

    name        of the module in the unmodified class, such as "model.layers.0.mlp.down_proj"
    entry       its weight on disk
    transposed  stored as (inputs, outputs), as GPT-2's Conv1D is
    first       of an expert whose matrix lies in one parameter with others': see experts.py; None for a module of the class
    """

    name: str
    module: Any
    entry: TensorEntry
    transposed: bool
    first: int | None = None

    @property
    def routed(self) -> bool:
        """Whether it reads only tokens that a router sends it."""
        return is_of_expert(self.name)

    @property
    def inputs(self) -> int:
        """Length of what the layer reads."""
        return self.entry.shape[0 if self.transposed else 1]

    @property
    def outputs(self) -> int:
        """Length of what the layer writes."""
        return self.entry.shape[1 if self.transposed else 0]

    def rows(self) -> Any:
        """(outputs, inputs) float32: the loaded weight, one row an output; writing to it writes to the layer."""
        weight = self.module.weight.data
        return weight.T if self.transposed else weight


@dataclass(frozen=True)
class Block:
    """One of a stack's equal modules.

    stack   name of its ModuleList, such as "model.layers"
    """

    stack: str
    index: int
    module: Any
    linears: tuple[Linear, ...]

    @property
    def name(self) -> str:
        """Its path in the unmodified class."""
        return f"{self.stack}.{self.index}"
