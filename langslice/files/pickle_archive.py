"""Where the tensors of `pytorch_model*.bin` lie, found without running code from the file.

`torch.load(mmap=True, weights_only=True)` tells names, shapes and storages; the archive, an uncompressed zip, tells
where each storage's bytes begin. Both are matched and compared byte by byte at the ends of every tensor, so that later
readers need offsets only. What has no such byte range (old archives without a zip, transposed views) is converted to a
temporary safetensors file.

Source: torch.save's format, https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import re
import shutil
import struct
import tempfile
import weakref
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import TensorEntry, damaged, read_header

if TYPE_CHECKING:
    import torch

ZIP_MAGIC = b"PK\x03\x04"
PAGE_BYTES = 4096
COMPARED_BYTES = 64

# What torch.load raises on damaged bytes, depending on where they are damaged.
TORCH_FAILURES = (
    RuntimeError, ValueError, EOFError, OSError, KeyError, IndexError, TypeError, AttributeError, struct.error,
)  # fmt: skip

DTYPE_NAMES = {
    "torch.bool": "BOOL", "torch.uint8": "U8", "torch.int8": "I8", "torch.int16": "I16", "torch.uint16": "U16",
    "torch.int32": "I32", "torch.uint32": "U32", "torch.int64": "I64", "torch.uint64": "U64", "torch.float16": "F16",
    "torch.bfloat16": "BF16", "torch.float32": "F32", "torch.float64": "F64", "torch.complex64": "C64",
    "torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2", "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ", "torch.float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


class ScratchFolder:
    """A temporary folder that is removed when nothing refers to it any more, or at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="langslice-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Archives:
    """What several pickle archives hold.

    tensors   for each archive, its tensors by offset
    aliases   name -> an earlier name with the same storage, offset and shape
    scratch   a ScratchFolder to be kept while entries are read, or None
    """

    tensors: tuple[tuple[TensorEntry, ...], ...]
    aliases: dict[str, str]
    notes: tuple[str, ...]
    scratch: ScratchFolder | None


def read_archives(names: Iterable[str], paths: Iterable[Path]) -> Archives:
    """Find every tensor's bytes in pytorch_model.bin or its shards.

    names    file names for messages; paths may be the hub's blobs
    Raises   CheckpointError when an archive is damaged, holds code, or holds anything but tensors
    """
    tensors: list[tuple[TensorEntry, ...]] = []
    aliases: dict[str, str] = {}
    notes: list[str] = []
    scratch: ScratchFolder | None = None
    for name, path in zip(names, paths, strict=True):
        is_zip = _first_bytes(path) == ZIP_MAGIC
        state = _load(name, path, is_zip)
        aliases.update(_aliases(state))
        entries: list[TensorEntry] = []
        if is_zip:
            entries = _byte_ranges(name, path, {key: value for key, value in state.items() if value.is_contiguous()})
        placed = {entry.name for entry in entries}
        others = {key: value for key, value in state.items() if key not in placed}
        if others:
            scratch = scratch or ScratchFolder()
            converted = scratch.path / f"{len(tensors)}.safetensors"
            entries += _convert(converted, others)
            notes.append(_conversion_note(name, is_zip, others, scratch.path))
        tensors.append(tuple(sorted(entries, key=lambda entry: (str(entry.path), entry.start))))
    return Archives(tuple(tensors), aliases, tuple(notes), scratch)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP_MAGIC))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}\n  {error.strerror}", "check the path and its rights") from None


def _load(name: str, path: Path, is_zip: bool) -> dict[str, torch.Tensor]:
    """Open an archive through torch, allowing tensors only."""
    import torch

    try:
        state = torch.load(path, mmap=is_zip, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise _refused(name, path, str(error)) from None
    except TORCH_FAILURES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise damaged(path, f"{name}, read by torch", "a state dict", reason, "download the file again") from None
    if not isinstance(state, Mapping):
        raise damaged(path, name, "a dict of tensors", type(state).__name__, "save the model's state_dict() instead")
    odd = [f"{key}: {type(value).__name__}" for key, value in state.items() if not _is_plain(key, value)]
    if odd:
        raise CheckpointError(
            f"{name} holds something other than plain tensors\n  {path}\n  " + "\n  ".join(odd[:10]),
            "save the model's own state_dict() with save_pretrained",
        )
    return {key: value.detach() for key, value in state.items()}


def _is_plain(key: object, value: object) -> bool:
    import torch

    return (
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
        and str(value.dtype) in DTYPE_NAMES
    )


def _refused(name: str, path: Path, text: str) -> CheckpointError:
    """Say which global a pickle wanted; torch's unpickler named it and did not call it."""
    found = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:class|type|global):? ([\w.]+)", text)
    if found:
        wanted = found.group(1) or found.group(2)
        return CheckpointError(
            f"{name} holds code, which was not run\n  {path}\n  expected tensors only, found a call of {wanted}",
            "ask its publisher for safetensors; convert it yourself only if you trust the file",
        )
    lines = [line for line in text.splitlines() if line.strip()]
    return damaged(
        path, f"{name}, read by torch", "a pickle of tensors", lines[-1] if lines else "an error", "download it again"
    )


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage().data_ptr()
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _aliases(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    first: dict[tuple[Any, ...], str] = {}
    aliases = {}
    for name, tensor in state.items():
        if tensor.numel() == 0:
            continue
        other = first.setdefault(_identity(tensor), name)
        if other != name:
            aliases[name] = other
    return aliases


def _byte_ranges(name: str, path: Path, state: Mapping[str, torch.Tensor]) -> list[TensorEntry]:
    """Turn the addresses of mapped storages into offsets in the file; what does not fit is left out."""
    records = _records(name, path)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    storages = {pointer: size for pointer, size in storages.items() if size}
    base = _mapping_base(storages, records)
    entries = []
    with path.open("rb") as file:
        for key, tensor in state.items():
            size_bytes = tensor.numel() * tensor.element_size()
            start = 0 if size_bytes == 0 or base is None else tensor.data_ptr() - base
            if size_bytes and (
                base is None or tensor.is_conj() or tensor.is_neg() or not _same_bytes(file.fileno(), start, tensor)
            ):
                continue
            entries.append(
                TensorEntry(key, DTYPE_NAMES[str(tensor.dtype)], tuple(tensor.shape), path, start, size_bytes)
            )
    return entries


def _records(name: str, path: Path) -> dict[int, int]:
    """Offsets in the file of the archive's stored data -> their sizes."""
    records = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for info in archive.infolist():
                if info.filename.rpartition("/")[2] == "byteorder" and archive.read(info) != b"little":
                    hint = "save it again on a little-endian machine"
                    raise damaged(path, f"byte order of {name}", "little", "big", hint)
                file.seek(info.header_offset)
                local = file.read(30)
                name_length, extra_length = struct.unpack("<HH", local[26:30])
                if info.compress_type == zipfile.ZIP_STORED:
                    records[info.header_offset + 30 + name_length + extra_length] = info.file_size
    except (zipfile.BadZipFile, struct.error, OSError) as error:
        raise damaged(path, f"the archive {name}", "a complete zip", str(error), "download the file again") from None
    return records


def _mapping_base(storages: Mapping[int, int], records: Mapping[int, int]) -> int | None:
    """Find the one address at which the file is mapped, so that every storage is a record of its size.

    storages   address -> bytes
    records    offset -> bytes
    Returns    None when no address, or more than one, fits
    """
    if not storages:
        return None
    first, size = next(iter(storages.items()))
    candidates = [
        first - offset for offset, length in records.items() if length == size and (first - offset) % PAGE_BYTES == 0
    ]
    fitting = [
        base
        for base in candidates
        if all(records.get(pointer - base) == length for pointer, length in storages.items())
    ]
    return fitting[0] if len(fitting) == 1 else None


def _same_bytes(file: int, start: int, tensor: torch.Tensor) -> bool:
    """Compare the first and last bytes of a mapped tensor with the file."""
    size_bytes = tensor.numel() * tensor.element_size()
    count = min(COMPARED_BYTES, size_bytes)
    return all(
        os.pread(file, count, start + offset) == ctypes.string_at(tensor.data_ptr() + offset, count)
        for offset in (0, size_bytes - count)
    )


def _convert(path: Path, state: Mapping[str, torch.Tensor]) -> list[TensorEntry]:
    """Write tensors to a temporary safetensors file; shared ones once for each name."""
    from safetensors.torch import save_file

    needed_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    free_bytes = shutil.disk_usage(path.parent).free
    if needed_bytes > free_bytes:
        raise CheckpointError(
            f"no room to convert tensors that lie unordered in a pickle\n  {path.parent}\n"
            f"  expected {needed_bytes:,} bytes, found {free_bytes:,} bytes free",
            "set TMPDIR to a folder on a larger disk",
        )
    save_file({name: tensor.resolve_conj().resolve_neg().clone().contiguous() for name, tensor in state.items()}, path)
    return list(read_header(path)[0])


def _conversion_note(name: str, is_zip: bool, state: Mapping[str, torch.Tensor], folder: Path) -> str:
    size_bytes = sum(math.prod(tensor.shape) * tensor.element_size() for tensor in state.values())
    what = "an archive of torch before 1.6"
    if is_zip:
        what = f"{len(state)} tensor{'s' * (len(state) > 1)} not stored as shaped"
    return f"{name}: {what}; {size_bytes:,} bytes were held in memory and converted in {folder}"
