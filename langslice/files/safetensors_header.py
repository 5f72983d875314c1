"""The header of one safetensors file: read and check it, or build a new one.

A safetensors file is an 8-byte little-endian length, that many bytes of JSON, and the tensors' bytes without gaps. This
module never reads tensor bytes. Which files make up a checkpoint is decided in model/checkpoint.py.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError

# Bits an element takes, for every dtype the format names. F4 and F6 elements share bytes with their neighbours.
DTYPE_BITS: dict[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
MAX_HEADER_BYTES = 100_000_000  # the reference reader refuses longer ones
HEADER_ALIGNMENT = 8
REDOWNLOAD = "download or copy the file again; it is damaged or not a safetensors file"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a checkpoint and the byte range that holds it.

    dtype   safetensors name ("F32", "BF16", "I8", "F8_E4M3", ...)
    shape   as stored, row-major
    path    absolute, symlinks resolved
    start   offset in that file of its first byte
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size_bytes: int


def tensor_size_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes that a dense tensor takes.

    Raises    ValueError when its bits do not fill whole bytes
    Example   tensor_size_bytes("BF16", (3, 4)) == 24
    """
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits % 8:
        raise ValueError(f"{dtype} {tuple(shape)} takes {bits} bits, which are not whole bytes")
    return bits // 8


def read_header(path: Path) -> tuple[tuple[TensorEntry, ...], dict[str, str]]:
    """Read the header of a safetensors file and check every statement it makes.

    path      the file; entries carry this path
    Returns   tensors in file order, and `__metadata__` ({} when absent)
    Raises    CheckpointError when the file cannot be read, or its header contradicts itself or the file's size
    """
    try:
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
            if length is None:
                raise damaged(path, "the header", "at least 8 bytes", f"a file of {file_bytes} bytes")
            if length > MAX_HEADER_BYTES or length + 8 > file_bytes:
                limit = min(MAX_HEADER_BYTES, max(file_bytes - 8, 0))
                raise damaged(path, "the header's length", f"at most {limit:,} bytes", f"{length:,}")
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}\n  {error.strerror or error}", "check the path and its rights"
        ) from None
    header = _parse_json(path, raw)
    metadata = _checked_metadata(path, header.pop("__metadata__", None))
    data_start = 8 + length
    entries = [_entry(path, name, value, data_start, file_bytes) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.size_bytes))
    _check_contiguous(path, entries, data_start, file_bytes)
    return tuple(entries), metadata


def build_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...], int]],
    metadata: Mapping[str, str],
    data_start_modulo: tuple[int, int],
) -> bytes:
    """Write the length and JSON of a header, padded with spaces to a wanted alignment.

    tensors             (name, dtype, shape, size in bytes), in file order
    data_start_modulo   (modulus, remainder): the first tensor byte lands at an offset with this remainder
    Example             build_header([("a", "U8", (2,), 2)], {}, (8, 0)) is a multiple of 8 bytes long
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, dtype, shape, size_bytes in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size_bytes]}
        offset += size_bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    modulus, remainder = data_start_modulo
    text += b" " * ((remainder - 8 - len(text)) % modulus)
    return struct.pack("<Q", len(text)) + text


def damaged(path: Path, where: str, expected: str, found: str, hint: str = REDOWNLOAD) -> CheckpointError:
    """Say what in a weight file is not as it must be."""
    return CheckpointError(
        f"damaged weight file {path.name}\n  {path}\n  {where}: expected {expected}, found {found}", hint
    )


def parse_strict_json(raw: bytes) -> Any:
    """Parse JSON in which no object may name a key twice.

    Raises   ValueError (of which JSONDecodeError and UnicodeDecodeError are kinds), RecursionError
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {twice!r} twice")
        return result

    value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    if b"\\ud" in raw or b"\\uD" in raw:
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return value


def _parse_json(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = parse_strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "the header", "JSON with distinct keys", str(error)) from None
    if not isinstance(header, dict):
        raise damaged(path, "the header", "a JSON object", type(header).__name__)
    return header


def _checked_metadata(path: Path, metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged(path, "__metadata__", "an object of strings", json.dumps(metadata)[:200])
    return metadata


def _entry(path: Path, name: str, value: object, data_start: int, file_bytes: int) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise damaged(path, f"tensor {name}", "the fields dtype, shape and data_offsets", str(found))
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        hint = "a newer langslice may know this dtype"
        raise damaged(path, f"dtype of {name}", f"one of {', '.join(sorted(DTYPE_BITS))}", str(dtype), hint)
    if not _is_sizes(shape):
        raise damaged(path, f"shape of {name}", "a list of sizes", str(shape))
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(path, f"data_offsets of {name}", "[begin, end] with begin <= end", str(offsets))
    begin, end = offsets
    try:
        size_bytes = tensor_size_bytes(dtype, shape)
    except ValueError as error:
        raise damaged(path, f"shape of {name}", "whole bytes", str(error)) from None
    if end - begin != size_bytes:
        raise damaged(path, f"data_offsets of {name}", f"{size_bytes:,} bytes for {dtype} {shape}", f"{end - begin:,}")
    if data_start + end > file_bytes:
        expected = f"a file of at least {data_start + end:,} bytes for {name}"
        raise damaged(path, "the file's size", expected, f"{file_bytes:,} (truncated?)")
    return TensorEntry(name, dtype, tuple(shape), path, data_start + begin, size_bytes)


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_contiguous(path: Path, entries: list[TensorEntry], data_start: int, file_bytes: int) -> None:
    position, previous = data_start, "the header"
    for entry in entries:
        if entry.start != position:
            word = "overlaps" if entry.start < position else "leaves a hole after"
            found = f"{entry.start - data_start:,} ({word} {previous})"
            raise damaged(path, f"begin of {entry.name}", f"{position - data_start:,}", found)
        position, previous = entry.start + entry.size_bytes, entry.name
    if position != file_bytes:
        raise damaged(
            path, "the file's size", f"{position:,} bytes", f"{file_bytes:,}, beyond what the header describes"
        )
