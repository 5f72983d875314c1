"""Weights that a model reads straight from its files: their pages are given back as soon as a module has run.

transformers maps the files of a checkpoint into memory, and a page that was read stays with the process until the model is
gone: running a model once holds all of it. What is given back here is read again, from the page cache, when it is needed.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DONTNEED = 4  # of madvise on Linux
# The head sees one position at a time, and hidden states are compared at all of them: a few positions show its every row.
_HEAD_POSITIONS = 4
_HEAD_ROWS = 1 << 15
# Bytes of weights that may stay: to look for the mappings takes longer than to run so small a model.
_SMALL = 1 << 25


@contextmanager
def giving_back_pages(model: Any) -> Iterator[None]:
    """Let every module of a large model give back the pages of its own parameters after it has run; on Linux, elsewhere nothing."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    mapped = _clean_mappings() if size > _SMALL else []

    def after(module: Any, *_: Any) -> None:
        for parameter in module._parameters.values():
            if parameter is not None:
                _give_back(parameter, mapped)

    hooks = [module.register_forward_hook(after) for module in model.modules() if mapped and module._parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def head_at_last(model: Any) -> Iterator[None]:
    """Let the output head, where the model has one, see the last positions only, and a large one be read in blocks of rows.

    On a large vocabulary it is most of the work, and most of the memory.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    import torch

    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -_HEAD_POSITIONS:], *inputs[1:]))
    in_blocks = type(head) is torch.nn.Linear and head.out_features > _HEAD_ROWS
    if in_blocks:
        mapped = _clean_mappings()
        head.forward = lambda states: _block_by_block(head, states, mapped)
    try:
        yield
    finally:
        hook.remove()
        if in_blocks:
            del head.forward


def _block_by_block(head: Any, states: Any, mapped: list[tuple[int, int]]) -> Any:
    """What a linear layer gives, its rows read one block after the other."""
    import torch

    found = []
    biases = [None] * head.out_features if head.bias is None else head.bias.split(_HEAD_ROWS)
    for weight, bias in zip(head.weight.split(_HEAD_ROWS), biases, strict=False):
        found.append(torch.nn.functional.linear(states, weight, bias))
        _give_back(weight, mapped)
    return torch.cat(found, dim=-1)


def _give_back(tensor: Any, mapped: list[tuple[int, int]]) -> None:
    """Drop the whole pages of a tensor, where it lies in one of the mappings."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return
    start, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    low, high = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
    at = bisect_right(mapped, (start, sys.maxsize)) - 1
    if low < high and at >= 0 and start + size <= mapped[at][1]:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), _DONTNEED)


def _clean_mappings() -> list[tuple[int, int]]:
    """First address and end of every mapping of a file that nobody has written to in memory: what is dropped is in the file."""
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[tuple[int, int]] = []
    place: tuple[int, int] | None = None
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):  # a mapping: addresses, rights, offset, device, inode, path
            low, high = (int(word, 16) for word in words[0].split("-"))
            place = (low, high) if words[4] != "0" else None
        elif place is not None and words[:2] == ["Anonymous:", "0"]:
            found.append(place)
    return sorted(found)
