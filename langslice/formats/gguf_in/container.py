"""The container: what a GGUF file says before its tensors, as spans of the file, so that what is not touched is carried as bytes.

Source: docs/gguf.md of ggml, versions 2 and 3; sizes of blocks from the `gguf` package.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from langslice.errors import CheckpointError

MAGIC = b"GGUF"
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_LENGTH = struct.Struct("<Q")
_DEFAULT_ALIGNMENT, _MOST_DIMENSIONS = 32, 4
_SPLIT_NAME = re.compile(r".*-\d{5}-of-\d{5}\.gguf")
ALIGNMENT = "general.alignment"


@dataclass(frozen=True)
class StoredValue:
    """One value of the metadata.

    kind        its type; of an array that of its items
    count       items of an array; None for a single value
    start, end  bytes of the file from behind the key: type, length, items
    first       first byte of the value itself, or of the first item
    """

    kind: int
    count: int | None
    start: int
    first: int
    end: int


@dataclass(frozen=True)
class StoredTensor:
    """One tensor.

    shape       the last dimension contiguous, as numpy has it
    kind        number of its type
    kind_name   such as Q4_K
    block       numbers in a block, along the last dimension
    block_bytes  bytes of a block
    start       first byte in the file
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    kind_name: str
    block: int
    block_bytes: int
    start: int

    @property
    def blocks(self) -> tuple[int, ...]:
        """The shape in blocks: (..., rows, blocks of a row)."""
        return (*self.shape[:-1], self.shape[-1] // self.block)

    @property
    def size_bytes(self) -> int:
        """Bytes of all its blocks."""
        return prod(self.blocks) * self.block_bytes


@dataclass(frozen=True)
class GgufSource:
    """A GGUF file, its header read.

    raw      the bytes before the tensors
    entries  key -> value, in their order
    tensors  name -> tensor, in their order
    """

    path: Path
    version: int
    raw: bytes
    entries: Mapping[str, StoredValue]
    tensors: Mapping[str, StoredTensor]
    alignment: int

    def value(self, key: str, default: Any = None) -> Any:
        """A value, strings as text, arrays as lists; `default` where there is none.

        Raises  CheckpointError for text that is not UTF-8
        """
        entry = self.entries.get(key)
        if entry is None:
            return default
        if entry.kind != STRING:
            count = 1 if entry.count is None else entry.count
            found = struct.unpack_from(f"<{count}{_NUMBERS[entry.kind]}", self.raw, entry.first)
            return found[0] if entry.count is None else list(found)
        try:
            texts = [self.raw[start:end].decode() for start, end in self.spans(key)]
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: {key} is not UTF-8: {error}") from error
        return texts[0] if entry.count is None else texts

    def spans(self, key: str) -> list[tuple[int, int]]:
        """Where each string of a value is in `raw`, without its length."""
        entry = self.entries[key]
        found, place = [], entry.first
        for _ in range(1 if entry.count is None else entry.count):
            size = _LENGTH.unpack_from(self.raw, place)[0]
            found.append((place + 8, place + 8 + size))
            place += 8 + size
        return found

    @cached_property
    def architecture(self) -> str:
        """llama.cpp's name of the kind of model."""
        return str(self.value("general.architecture", ""))

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size


def is_gguf(path: str | Path) -> bool:
    """Whether this names a GGUF file: a file that calls itself one, or begins as one does."""
    try:
        path = Path(path).expanduser()
        if not path.is_file() or path.suffix == ".gguf":
            return path.is_file()
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except (OSError, RuntimeError, ValueError):  # too long, unreadable, the home of nobody: whoever opens it says so
        return False


def read_gguf(path: str | Path) -> GgufSource:
    """Read the header of a file; no tensor is read.

    Raises  CheckpointError for what is not a whole GGUF file of its own, or has a type that is not known
    """
    path = Path(path).expanduser()
    if find_spec("gguf") is None:
        raise CheckpointError("this needs the package gguf, which is not installed", "pip install 'langslice[gguf]'")
    with _opened(path) as file:
        if file.read(4) != MAGIC:
            raise CheckpointError(
                f"{path} is not a GGUF file: it does not begin with GGUF", "name a model folder, or a GGUF"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            try:
                source = _read(path, view)
            except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as error:
                raise CheckpointError(
                    f"{path}: the header is damaged: {error}", "the file may be cut short; download it again"
                ) from error
    _check_whole(source)
    return source


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path, view: mmap.mmap) -> GgufSource:
    version, tensors, values = struct.unpack_from("<IQQ", view, 4)
    if version not in (2, 3):
        raise CheckpointError(
            f"{path}: GGUF version {version} in little-endian numbers is not read",
            "versions 2 and 3 are: convert it anew",
        )
    place = 24
    entries: dict[str, StoredValue] = {}
    for _ in range(values):
        key, start = _text(view, place)
        if key in entries:
            raise CheckpointError(f"{path}: {key} is there twice")
        entries[key] = entry = _entry(view, start, f"{path}: {key}")
        place = entry.end
    found = []
    for _ in range(tensors):
        name, place = _text(view, place)
        (count,) = struct.unpack_from("<I", view, place)
        if not 0 < count <= _MOST_DIMENSIONS:
            raise CheckpointError(f"{path}: {name} has {count} dimensions")
        *shape, kind, offset = struct.unpack_from(f"<{count}QIQ", view, place + 4)
        place += 16 + 8 * count
        found.append((name, tuple(reversed(shape)), kind, offset))
    alignment = _DEFAULT_ALIGNMENT
    if ALIGNMENT in entries:
        (alignment,) = struct.unpack_from("<I", view, entries[ALIGNMENT].first)
    data = place + -place % max(alignment, 1)
    stored = {each[0]: _tensor(path, *each, data) for each in found}
    if len(stored) < len(found) or not alignment:
        raise CheckpointError(f"{path}: two tensors have one name, or the alignment is 0")
    return GgufSource(path, version, view[:place], entries, stored, alignment)


def _text(view: mmap.mmap, place: int) -> tuple[str, int]:
    """A string, and the place behind it."""
    size = _LENGTH.unpack_from(view, place)[0]
    if size > len(view) - place:
        raise IndexError(f"a text of {size:,} bytes at byte {place:,}")
    return view[place + 8 : place + 8 + size].decode(), place + 8 + size


def _entry(view: mmap.mmap, start: int, where: str) -> StoredValue:
    (kind,) = struct.unpack_from("<I", view, start)
    first, count = start + 4, None
    if kind == ARRAY:
        kind, count = struct.unpack_from("<IQ", view, first)
        first += 12
    items = 1 if count is None else count
    if kind == STRING:
        end = first
        for _ in range(items):
            end += 8 + _LENGTH.unpack_from(view, end)[0]
    elif kind in _NUMBERS:
        end = first + items * struct.calcsize(f"<{_NUMBERS[kind]}")
    else:
        raise CheckpointError(f"{where} has a type that is not known: {kind}")
    if end > len(view):
        raise IndexError(f"{where} goes beyond the end")
    return StoredValue(kind, count, start, first, end)


def _tensor(path: Path, name: str, shape: tuple[int, ...], kind: int, offset: int, data: int) -> StoredTensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        named = GGMLQuantizationType(kind)
    except ValueError:
        raise CheckpointError(f"{path}: {name} is of type {kind}, which the package gguf does not know") from None
    block, size = GGML_QUANT_SIZES[named]
    if shape[-1] % block:
        raise CheckpointError(f"{path}: a row of {name} is {shape[-1]} numbers, no whole blocks of {block}")
    return StoredTensor(name, shape, kind, named.name, block, size, data + offset)


def _check_whole(source: GgufSource) -> None:
    """Refuse one file of several, and one that ends early."""
    if (source.value("split.count", 1) or 1) > 1 or _SPLIT_NAME.fullmatch(source.path.name):
        raise CheckpointError(
            f"{source.path} is one file of several", "join them first: llama-gguf-split --merge FIRST.gguf WHOLE.gguf"
        )
    for tensor in source.tensors.values():
        if tensor.start + tensor.size_bytes > source.size_bytes:
            raise CheckpointError(
                f"{source.path} ends within {tensor.name}\n  expected {tensor.start + tensor.size_bytes:,} bytes, found "
                f"{source.size_bytes:,}",
                "download the file again",
            )


def text_bytes(text: bytes) -> bytes:
    """A string as the container has it."""
    return _LENGTH.pack(len(text)) + text


def encoded(kind: int, value: Any) -> bytes:
    """A single value with its type, as it stands behind a key."""
    body = text_bytes(value.encode()) if kind == STRING else struct.pack(f"<{_NUMBERS[kind]}", value)
    return struct.pack("<I", kind) + body


def encoded_array(kind: int, items: Sequence[Any]) -> bytes:
    """An array with its types; strings as bytes."""
    body = b"".join(map(text_bytes, items)) if kind == STRING else struct.pack(f"<{len(items)}{_NUMBERS[kind]}", *items)
    return struct.pack("<IIQ", ARRAY, kind, len(items)) + body


def header_bytes(
    version: int, alignment: int, values: Mapping[str, bytes], tensors: Iterable[tuple[str, tuple[int, ...], int, int]]
) -> bytes:
    """All that stands before the tensors, filled up to the first of them.

    values   key -> encoded value
    tensors  name, shape, number of the type and offset behind the header of each
    """
    listed = list(tensors)
    parts = [MAGIC, struct.pack("<IQQ", version, len(listed), len(values))]
    for key, value in values.items():
        parts += (text_bytes(key.encode()), value)
    for name, shape, kind, offset in listed:
        parts.append(text_bytes(name.encode()))
        parts.append(struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset))
    whole = b"".join(parts)
    return whole + b"\0" * (-len(whole) % alignment)
