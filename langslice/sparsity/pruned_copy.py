"""Prune a copy of a model into a new folder, and check it: what changed is what the report says, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from langslice.errors import VerificationError
from langslice.files.copy_ranges import fsync_path
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.progress import Report, silent
from langslice.sparsity.experts import part_of
from langslice.sparsity.main import sparsify
from langslice.sparsity.report import SparsityReport, TensorSparsity
from langslice.sparsity.request import SparsityRequest, check_request
from langslice.sparsity.weight_bytes import count_zeros, read_bytes
from langslice.writing.shards import INDEX_NAME, TensorEdit, check_output, staging_folder, write_shards

COPIED = "copied"


def prune_copy(
    model: str | Path,
    out: str | Path,
    request: SparsityRequest,
    *,
    work: Path | None = None,
    overwrite: bool = False,
    report: Report = silent,
) -> SparsityReport:
    """Copy a model, prune the copy, check it, and let it appear at `out`.

    model    a local folder, or the id of a model on the hub; it is only read
    out      folder to make; nothing appears there before the work is done and checked
    work     folder on the same disk as `out` that survives a kill; the same call again goes on from there, and removes it
    Raises   what `sparsify` raises, OutputError, and VerificationError when a byte changed that should not have
    """
    check_request(request)
    out = Path(out)
    source = open_checkpoint(model)
    check_output(out, source=source.folder, overwrite=overwrite)
    if work is None:
        with staging_folder(out, source=source.folder, overwrite=overwrite) as staging:
            copy_files(source, staging)
            done = sparsify(staging, request, report=report)
            check_pruned(source, open_checkpoint(staging), done)
        return done
    staging = work / "model"
    if not (work / COPIED).exists():
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        copy_files(source, staging)
        (work / COPIED).write_text("")
        fsync_path(work)
    done = sparsify(staging, request, work=work, report=report)
    check_pruned(source, open_checkpoint(staging), done)
    with staging_folder(out, source=source.folder, overwrite=overwrite) as folder:
        for path in staging.iterdir():
            path.replace(folder / path.name)
    shutil.rmtree(work)
    return done


def check_pruned(source: Checkpoint, pruned: Checkpoint, done: SparsityReport) -> None:
    """Compare a pruned copy with its source, tensor by tensor.

    Every tensor without a report is equal byte by byte; a pruned one has the zeros that were reported, and, unless the
    score updates weights, equals its source wherever it is not zero.
    Raises  VerificationError
    """
    before, after = source.tensors, pruned.tensors
    if before.keys() != after.keys():
        raise VerificationError(
            f"the pruned copy has other tensors than its source: {sorted(before.keys() ^ after.keys())[:5]}"
        )
    for name, entry in after.items():
        reported = done.tensors.get(name)
        if reported is None:
            if not _equal(before[name], entry):
                raise VerificationError(f"{name} was not to be pruned, and differs from its source")
            continue
        zeros = count_zeros(entry)
        if zeros != reported.zeros:
            raise VerificationError(f"{name} has {zeros:,} zeros, the report says {reported.zeros:,}")
        if done.request.score != "sparsegpt" and not _equal(before[name], entry, but_zeros=True):
            raise VerificationError(f"{name} differs from its source in a weight that was kept")
        for number, was, now in _left_experts(reported, before[name], entry):
            if not _equal(was, now):
                raise VerificationError(f"expert {number} of {name} was not to be pruned, and differs from its source")


def _left_experts(
    reported: TensorSparsity, before: TensorEntry, after: TensorEntry
) -> Iterator[tuple[int, TensorEntry, TensorEntry]]:
    """The experts of a tensor that were left as they are, with their matrices in the source and in the copy."""
    for one in reported.experts:
        if not one.asked:
            was, now = (part_of(entry, one.expert, len(reported.experts)) for entry in (before, after))
            yield one.expert, was, now


def _equal(left: TensorEntry, right: TensorEntry, *, but_zeros: bool = False) -> bool:
    """Whether two tensors are equal byte by byte, or wherever the second is not zero."""
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    kind = f"u{DTYPE_BITS[left.dtype] // 8}" if but_zeros else "u1"
    for one, other in zip(_windows(left), _windows(right), strict=True):
        if but_zeros:
            values = other.view(kind)
            if not np.array_equal(one.view(kind)[values != 0], values[values != 0]):
                return False
        elif not np.array_equal(one, other):
            return False
    return True


def _windows(entry: TensorEntry) -> Iterator[np.ndarray]:
    step = 16 << 20
    for offset in range(0, entry.size_bytes, step):
        yield read_bytes(entry, offset, min(step, entry.size_bytes - offset))


def copy_files(source: Checkpoint, folder: Path) -> None:
    """Copy the files of a checkpoint; weights become safetensors where they are not."""
    weights = {shard.name for shard in source.shards}
    for path in source.model_folder.iterdir():
        is_weight = path.name in weights or path.suffix in (".bin", ".safetensors") or path.name.endswith(".index.json")
        if path.is_file() and not is_weight and path.name != INDEX_NAME:
            shutil.copyfile(path, folder / path.name)
    write_shards(source, {name: TensorEdit("keep") for name in source.tensors}, folder)
