"""Weights other than the main ones: opened, and told apart from copies of the main ones.

A head that reads hidden states, a LoRA, a trained prompt know nothing of the vocabulary and are carried; what runs along
something that is sliced is sliced with it (derived_files.py); the model itself in another format is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from shlex import quote

import numpy as np

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import TensorEntry, read_header
from langslice.model.checkpoint import Checkpoint

PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.npy")
# Names under which transformers looks for a model's own weights.
OWN_NAMES = ("pytorch_model*.bin", "model*.safetensors")
_SAMPLE = 4096  # elements that are compared at the beginning, in the middle and at the end of a tensor
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_DTYPES = {np.dtype(numpy): name for name, numpy in _NUMPY.items()}


@dataclass(frozen=True)
class SideTensors:
    """What a file of weights holds.

    entries  name -> tensor; one without a name for an array of numpy
    scratch  keeps converted tensors on disk for as long as this object lives
    """

    entries: Mapping[str, TensorEntry]
    scratch: object = None


def is_weights(name: str) -> bool:
    """Whether a file's name is one of weights."""
    return any(fnmatch(name.rpartition("/")[2], pattern) for pattern in PATTERNS)


def open_side_weights(path: Path) -> SideTensors:
    """Read what a file of weights holds, without running code in it and without reading the tensors.

    Raises   CheckpointError for a file that holds anything but tensors
    """
    if path.suffix == ".safetensors":
        return SideTensors({entry.name: entry for entry in read_header(path)[0]})
    if path.suffix == ".npy":
        return SideTensors({"": _array_entry(path)})
    from langslice.files.pickle_archive import read_archives

    read = read_archives([path.name], [path])
    return SideTensors({entry.name: entry for entry in read.tensors[0]}, read.scratch)


def why_left_out(checkpoint: Checkpoint, name: str) -> str:
    """Why weights other than the main ones are not in a slice; "" where they stay.

    name     path below the model's root
    Raises   CheckpointError for a file that is not understood
    """
    path = checkpoint.folder / name
    main = checkpoint.shards[0].name if checkpoint.shards else ""
    own = bool(main) and path.parent == checkpoint.model_folder
    own = own and any(fnmatch(path.name, pattern) for pattern in OWN_NAMES)
    try:
        found = open_side_weights(path)
    except CheckpointError as error:
        if own:
            return f"weights that nothing reads next to {main}; they could not be opened"
        raise CheckpointError(
            f"{name} in {checkpoint.folder} cannot be told from old weights: {error.message}; nothing was written",
            hint=f"pass --leave-out {quote(name)} if it holds the old weights, or --carry {quote(name)} if it does not "
            "depend on the vocabulary or the layers",
        ) from error
    others = own_tensors(found.entries, checkpoint.tensors)
    if not others and main:
        return f"the same tensors as {main}, in another file"
    if own:
        return f"weights that nothing reads next to {main}; {len(others)} of its tensors differ, such as {others[0]}"
    return ""


def own_tensors(entries: Mapping[str, TensorEntry], main: Mapping[str, TensorEntry]) -> list[str]:
    """Names of the tensors that are no copies of main ones, by their values; stored numbering (int64) of positions aside."""
    by_shape: dict[tuple[int, ...], list[TensorEntry]] = {}
    for entry in main.values():
        by_shape.setdefault(entry.shape, []).append(entry)
    others = []
    for name, entry in entries.items():
        if entry.dtype == "I64" and len(entries) > 1:
            continue
        alike = [
            other for other in by_shape.get(entry.shape, ()) if _same_name(name, other.name) or not _is_constant(entry)
        ]
        alike.sort(key=lambda other: other.name != name)
        if not any(_same_values(entry, other) for other in alike):
            others.append(name)
    return others


def _array_entry(path: Path) -> TensorEntry:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path.name} is not an array of numpy: {error}") from None
    dtype = _DTYPES.get(array.dtype)
    if dtype is None or not array.flags["C_CONTIGUOUS"]:
        raise CheckpointError(f"{path.name} holds {array.dtype} in an order that is not understood")
    return TensorEntry("", dtype, array.shape, path, int(array.offset), int(array.nbytes))


def _same_name(one: str, other: str) -> bool:
    """Whether two names differ by a prefix at most."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _is_constant(entry: TensorEntry) -> bool:
    """Whether a tensor begins with one number again and again, as biases and norms before training do."""
    values = _values(entry, 0, min(_SAMPLE, int(np.prod(entry.shape, dtype=np.int64))))
    return values is not None and bool((values == values[:1]).all())


def _same_values(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two tensors hold the same numbers, up to the rounding of a smaller type, where they are sampled."""
    if one.shape != other.shape:
        return False
    size = int(np.prod(one.shape, dtype=np.int64))
    for first in sorted({0, max(size // 2 - _SAMPLE // 2, 0), max(size - _SAMPLE, 0)}):
        left, right = (_values(entry, first, min(_SAMPLE, size - first)) for entry in (one, other))
        if left is None or right is None:
            return one.dtype == other.dtype and _bytes(one, first) == _bytes(other, first)
        if one.dtype == other.dtype:
            if not np.array_equal(left, right, equal_nan=True):
                return False
        elif not np.allclose(left, right, rtol=1e-2, atol=1e-6, equal_nan=True):
            return False
    return True


def _values(entry: TensorEntry, first: int, count: int) -> np.ndarray | None:
    """Some numbers of a tensor as float64; None for types that are only compared by their bytes."""
    if entry.dtype == "BF16":
        halves = np.fromfile(entry.path, "<u2", count, offset=entry.start + 2 * first)
        return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if entry.dtype not in _NUMPY:
        return None
    dtype = np.dtype(_NUMPY[entry.dtype])
    found = np.fromfile(entry.path, dtype, count, offset=entry.start + dtype.itemsize * first)
    return found.astype(np.float64)


def _bytes(entry: TensorEntry, first: int) -> bytes:
    with entry.path.open("rb") as file:
        file.seek(entry.start + min(first, max(entry.size_bytes - _SAMPLE, 0)))
        return file.read(min(_SAMPLE, entry.size_bytes))
