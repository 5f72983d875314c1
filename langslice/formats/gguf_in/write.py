"""A GGUF file written from another: its header, then every tensor, rows gathered as bytes through windows of fixed size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from langslice.files.atomic_output import check_space
from langslice.files.copy_ranges import Progress, copy_range
from langslice.files.gather_rows import Windows, gather, split_gather
from langslice.formats.gguf_in.container import GgufSource, header_bytes
from langslice.formats.gguf_in.parts import TensorCut

_COMPARED_BYTES = 8 << 20


def write_cut(
    source: GgufSource, values: Mapping[str, bytes], cuts: Sequence[TensorCut], path: Path, progress: Progress
) -> dict[str, int]:
    """Write a file; gives "gather" and "copy" -> bytes of tensors.

    values    key of the metadata -> encoded value
    progress  is told bytes
    Raises    OutputError where the disk is too small
    """
    listed, offset = [], 0
    for cut in cuts:
        listed.append((cut.name, cut.shape, cut.source.kind, offset))
        offset += cut.size_bytes + -cut.size_bytes % source.alignment
    head = header_bytes(source.version, source.alignment, values, listed)
    check_space(path.parent, len(head) + offset)
    methods = {"gather": 0, "copy": 0}
    windows = Windows()
    read, written = os.open(source.path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    try:
        os.pwrite(written, head, 0)
        for cut, (_, _, _, place) in zip(cuts, listed, strict=True):
            tensor, target = cut.source, len(head) + place
            methods["gather" if cut.indices else "copy"] += cut.size_bytes
            if not cut.indices:
                copy_range(read, tensor.start, tensor.size_bytes, written, target, progress)
                continue
            shape = (*tensor.blocks, tensor.block_bytes)
            for piece in split_gather(tensor.start, shape, cut.indices, 1, target):
                gather(read, written, piece, windows, progress)
        os.truncate(written, len(head) + offset)
    finally:
        os.close(read)
        os.close(written)
    return methods


def differing(source: GgufSource, result: GgufSource, cuts: Sequence[TensorCut]) -> tuple[int, list[str]]:
    """Compare what was written with the source, byte by byte; gives bytes that are equal, and names of tensors that differ."""
    same, wrong = 0, []
    for cut in cuts:
        there = result.tensors.get(cut.name)
        if there is None or (there.shape, there.kind) != (cut.shape, cut.source.kind):
            wrong.append(cut.name)
            continue
        before = _view(source.path, cut.source.start, (*cut.source.blocks, cut.source.block_bytes))
        after = _view(result.path, there.start, (*there.blocks, there.block_bytes))
        rows = cut.indices.get(0, np.arange(before.shape[0]))
        inner = {dim: stay for dim, stay in cut.indices.items() if dim}
        step = max(1, _COMPARED_BYTES // max(1, before[:1].size))
        for at in range(0, len(rows), step):
            expected = before[rows[at : at + step]]
            for dim, stay in inner.items():
                expected = expected.take(stay, axis=dim)
            if not np.array_equal(expected, after[at : at + step]):
                wrong.append(cut.name)
                break
        same += 0 if wrong and wrong[-1] == cut.name else cut.size_bytes
    return same, wrong


def _view(path: Path, start: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=shape)
