"""Between two blocks: what the last one made of each prompt, in memory or on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError

PREFIX = "activations-"


class Activations:
    """The latest output of each stack for each prompt.

    folder  keep them on disk in this folder instead of in memory
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._memory: dict[tuple[int, str], Any] = {}
        self._temporary = None if folder is None else tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder)

    def put(self, prompt: int, stack: str, output: Any) -> None:
        """Replace what a stack made of a prompt; a tensor, or a tuple of tensors and None."""
        if self._temporary is None:
            self._memory[prompt, stack] = output
            return
        import torch

        # A view would be written with all of its base.
        torch.save(_mapped(lambda tensor: tensor.contiguous().clone(), output), self._path(prompt, stack))

    def get(self, prompt: int, stack: str) -> Any:
        """What a stack made of a prompt; a copy, so that a block may work in place."""
        if self._temporary is None:
            return _mapped(lambda tensor: tensor.clone(), self._memory[prompt, stack])
        import torch

        return torch.load(self._path(prompt, stack), weights_only=True)

    def close(self) -> None:
        """Remove everything."""
        self._memory.clear()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _path(self, prompt: int, stack: str) -> Path:
        return Path(self._temporary.name if self._temporary is not None else "") / f"{prompt:06d}-{stack}.pt"


class Answer(tuple[Any, ...]):
    """What a block returned, handed to the unmodified forward again; it notes which items are read.

    Some classes return attention weights that nobody asked for, larger than all else together: what the forward does not
    read of the first prompt need not be kept of any.

    read      numbers of the items that were asked for, shared by all answers of a stack
    dropped   numbers of the items that were not kept
    """

    read: set[int]
    dropped: frozenset[int]

    def __new__(cls, items: tuple[Any, ...], read: set[int], dropped: frozenset[int]) -> Answer:
        """A tuple cannot be filled later."""
        made = super().__new__(cls, items)
        made.read, made.dropped = read, dropped
        return made

    def __getitem__(self, index: Any) -> Any:
        self._note(range(len(self))[index] if isinstance(index, slice) else (range(len(self))[index],))
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        self._note(range(len(self)))
        return super().__iter__()

    def __add__(self, other: Any) -> Any:
        return tuple(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + tuple(self)

    def _note(self, numbers: Iterable[int]) -> None:
        self.read.update(numbers)
        if not self.dropped.isdisjoint(numbers):
            raise CheckpointError(
                "a block's output is read that was not read of the block before",
                "this architecture cannot be walked block by block",
            )


def hidden_of(output: Any) -> Any:
    """The hidden states among what a block returns."""
    return output[0] if isinstance(output, tuple) else output


def _mapped(function: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(None if item is None else function(item) for item in output)
    return function(output)
