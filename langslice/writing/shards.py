"""Stream tensors from a source checkpoint into a new one: layout, byte ranges, gathers, index, fsync.

Every source shard becomes one safetensors shard. Kept bytes are moved inside the kernel (files/copy_ranges.py), sliced tensors go
through fixed windows (files/gather_rows.py), and the folder they are written to becomes the output by rename
(files/atomic_output.py). What happens to which tensor is the plan's business.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import OutputError, PlanError
from langslice.files.atomic_output import check_output, check_space, out_of_space, staging_folder
from langslice.files.copy_ranges import can_link, can_reflink, fsync_path
from langslice.files.gather_rows import sliced_shape
from langslice.files.safetensors_header import DTYPE_BITS, tensor_size_bytes
from langslice.model.checkpoint import Checkpoint, Shard
from langslice.writing.shard_layout import ShardLayout, lay_out
from langslice.writing.shard_steps import ShardWriter, Stopped

__all__ = ["TensorEdit", "WriteReport", "check_output", "output_size", "staging_folder", "write_shards"]

INDEX_NAME = "model.safetensors.index.json"
ACTIONS = ("keep", "slice", "drop")


@dataclass(frozen=True)
class TensorEdit:
    """What happens to one tensor.

    action   "keep" | "slice" | "drop"
    indices  for "slice": dimension -> int64 indices to gather along it, in output order (an index may repeat)
    reason   why, for "drop"
    name     name in the output, where it is another
    """

    action: str
    indices: Mapping[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    reason: str = ""
    name: str = ""


@dataclass(frozen=True)
class WriteReport:
    """Bytes and files that a rewrite produced.

    files            names inside the output, the index included
    size_bytes       of all these files
    bytes_by_method  "gather" | "copy" | "reflink" | "link" -> bytes of tensors
    notes            sentences a user should see: a wished method that was not available
    """

    files: tuple[str, ...]
    size_bytes: int
    bytes_by_method: Mapping[str, int]
    notes: tuple[str, ...] = ()


def output_size(checkpoint: Checkpoint, edits: Mapping[str, TensorEdit]) -> int:
    """Bytes of tensor data that `write_shards` would write.

    Raises   PlanError when the edits do not fit the checkpoint
    """
    check_edits(checkpoint, edits)
    shapes = {name: sliced_shape(tensor.shape, edits[name].indices) for name, tensor in checkpoint.tensors.items()}
    return sum(
        tensor_size_bytes(tensor.dtype, shapes[name])
        for name, tensor in checkpoint.tensors.items()
        if edits[name].action != "drop"
    )


def write_shards(
    checkpoint: Checkpoint,
    edits: Mapping[str, TensorEdit],
    out: Path,
    *,
    link: bool = False,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
    reserve_bytes: int = 0,
) -> WriteReport:
    """Write every tensor of the source, edited, as safetensors shards in `out`.

    edits          one for every tensor
    out            an existing folder, empty of weights; see `staging_folder`
    link           hard-link shards without an edit instead of copying them
    progress       told the bytes of each step as it is done, from any thread, one at a time; the sum is `output_size`
    reserve_bytes  room that other files of the output will need
    Raises         PlanError before anything is written; OutputError when the disk is or becomes too small
    """
    check_edits(checkpoint, edits)
    notes: list[str] = []
    layouts = _layouts(checkpoint, edits, out, link, notes)
    needed_bytes = sum(layout.unshared_bytes for layout in layouts) + reserve_bytes
    check_space(out, needed_bytes)
    writer = ShardWriter(out, progress or (lambda size_bytes: None))
    try:
        _run(writer, layouts, threads)
        files = [layout.name for layout in layouts]
        if len(checkpoint.shards) > 1 or files != ["model.safetensors"]:
            _write_index(checkpoint, layouts, out / INDEX_NAME)
            files.append(INDEX_NAME)
        fsync_path(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise out_of_space(out, needed_bytes) from None
        raise OutputError(
            f"writing the weights failed\n  {out}\n  {error}", "check the disk (dmesg) and the rights of both folders"
        ) from None
    size_bytes = sum((out / name).stat().st_size for name in files)
    return WriteReport(tuple(files), size_bytes, dict(writer.bytes_by_method), tuple(notes))


def check_edits(checkpoint: Checkpoint, edits: Mapping[str, TensorEdit]) -> None:
    """Refuse edits that do not fit the checkpoint.

    Raises   PlanError that names the first tensors at fault
    """
    tensors = checkpoint.tensors
    for names, what in (
        (tensors.keys() - edits.keys(), "without an edit"),
        (edits.keys() - tensors.keys(), "not in the source"),
    ):
        if names:
            shown = "\n  ".join(sorted(names)[:10])
            raise PlanError(
                f"{len(names)} tensors {what}\n  {shown}", "the plan was made for another checkpoint; plan again"
            )
    for name, tensor in tensors.items():
        fault = _fault(edits[name], tensor.dtype, tensor.shape)
        if fault:
            raise PlanError(f"impossible edit of {name}  {tensor.dtype} {tensor.shape}\n  {fault}", "correct the plan")
    written = Counter(edit.name or name for name, edit in edits.items() if edit.action != "drop")
    twice = [name for name, count in written.items() if count > 1]
    if twice:
        raise PlanError(f"{len(twice)} tensors of the output have one name\n  {twice[0]}", "correct the plan")
    if all(edit.action == "drop" for edit in edits.values()):
        raise PlanError("the plan drops every tensor", "nothing would be left; correct the plan")


def _fault(edit: TensorEdit, dtype: str, shape: tuple[int, ...]) -> str | None:
    """Say in one line what is wrong with an edit; None when it fits."""
    if edit.action not in ACTIONS:
        return f"action: expected one of {', '.join(ACTIONS)}, found {edit.action!r}"
    if edit.action != "slice":
        return (
            f"indices: expected none for {edit.action!r}, found dimensions {sorted(edit.indices)}"
            if edit.indices
            else None
        )
    if not edit.indices:
        return "indices: expected at least one dimension, found none"
    if DTYPE_BITS[dtype] % 8:
        return f"dtype: {dtype} packs several elements into a byte, which cannot be sliced"
    for dim, values in edit.indices.items():
        if not 0 <= dim < len(shape):
            return f"dimension: expected below {len(shape)}, found {dim}"
        if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != np.int64:
            return f"indices of dimension {dim}: expected a one-dimensional int64 array"
        if len(values) and (values.min() < 0 or values.max() >= shape[dim]):
            return f"indices of dimension {dim}: expected 0 to {shape[dim] - 1}, found {values.min()} to {values.max()}"
    return None


def _layouts(
    checkpoint: Checkpoint, edits: Mapping[str, TensorEdit], out: Path, link: bool, notes: list[str]
) -> list[ShardLayout]:
    """Lay out every output shard and choose how its bytes get there."""
    layouts = []
    reflinks: dict[int, bool] = {}
    for number, shard in enumerate(checkpoint.shards, 1):
        kept = [tensor for tensor in shard.tensors if edits[tensor.name].action != "drop"]
        if not kept:
            notes.append(f"{shard.name} is not in the output: every tensor of it is dropped")
            continue
        device = shard.path.stat().st_dev
        if device not in reflinks:
            reflinks[device] = can_reflink(shard.path, out)
        untouched = (
            shard.format == "safetensors"
            and "format" in shard.metadata
            and all(edits[tensor.name] == TensorEdit("keep") for tensor in shard.tensors)
            and all(tensor.path == shard.path for tensor in shard.tensors)  # none comes from another file
        )
        method = "write"
        if untouched and reflinks[device]:
            method = "reflink"
        elif untouched and link:
            method = "link" if can_link(shard.path, out) else "write"
            if method == "write":
                notes.append(f"{shard.name} was copied: a hard link from {out.parent} to {shard.path} is not possible")
        name = _output_name(shard, number, len(checkpoint.shards))
        indices = {tensor.name: edits[tensor.name].indices for tensor in kept}
        names = {tensor.name: edits[tensor.name].name or tensor.name for tensor in kept}
        layouts.append(lay_out(shard, name, kept, names, indices, method, reflinks[device], untouched))
    return layouts


def _output_name(shard: Shard, number: int, count: int) -> str:
    if shard.format == "safetensors":
        return shard.name
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _run(writer: ShardWriter, layouts: list[ShardLayout], threads: int) -> None:
    """Do all steps; the first error, or a signal, stops the other threads at their next step."""
    threads = max(threads, 1)
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(step) for step in writer.steps(layouts, threads)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failures = [error for future in futures if future.done() and (error := future.exception())]
        finally:
            writer.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            writer.close()
    for error in failures:
        if not isinstance(error, Stopped):
            raise error


def _write_index(checkpoint: Checkpoint, layouts: list[ShardLayout], path: Path) -> None:
    """Write the index, keeping the source's own metadata."""
    tensors = [(tensor, layout.name) for layout in layouts for tensor in layout.tensors]
    metadata: dict[str, Any] = {**checkpoint.index_metadata}
    metadata["total_size"] = sum(tensor.size_bytes for tensor, _ in tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(int(np.prod(tensor.shape, dtype=np.int64)) for tensor, _ in tensors)
    weight_map = {tensor.name: name for tensor, name in sorted(tensors, key=lambda item: item[0].name)}
    with path.open("x", encoding="utf-8") as file:
        json.dump({"metadata": metadata, "weight_map": weight_map}, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
