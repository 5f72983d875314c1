"""Stream the units of files and hub datasets, decoded strictly, in bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from langslice.corpus.sources import CorpusFile, HubDataset, find_corpora
from langslice.errors import CorpusError

BLOCK_BYTES = 1 << 20
LONGEST_LINE = 256 << 20
BOM = b"\xef\xbb\xbf"

Progress = Callable[[int], None]


def read_texts(
    corpora: Sequence[str],
    *,
    text_field: str = "text",
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Yield the units of every corpus in order; empty ones are passed over.

    corpora     files, folders (read recursively, sorted), globs, hub datasets (owner/name, owner/name:config@split)
    text_field  field of jsonl and parquet records, and of hub datasets, that holds the text
    progress    receives the bytes read from disk (compressed where the file is; of hub datasets the text's bytes)
    report      receives a line about files that are left out; a warning is issued when None
    Raises      CorpusError at once for what cannot be found, while reading for what is damaged, not UTF-8, has no such
                field, or holds no text at all
    """
    sources, left_out = find_corpora(corpora)
    if left_out:
        names = ", ".join(str(path) for path in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        line = f"left out, of unknown type: {names}{more}"
        if report is not None:
            report(line)
        else:
            warnings.warn(line, stacklevel=2)
    return _read_all(sources, text_field, progress or _ignore)


def _ignore(size_bytes: int) -> None:
    """Report to nobody."""


def _read_all(sources: Sequence[CorpusFile | HubDataset], text_field: str, progress: Progress) -> Iterator[str]:
    for source in sources:
        units = _units_of(source, text_field, progress)
        first = next(units, None)
        if first is None:
            name = source.name if isinstance(source, HubDataset) else source.path
            raise CorpusError(f"{name}: holds no text", "leave it out, or check --text-field")
        yield first
        yield from units


def _units_of(source: CorpusFile | HubDataset, text_field: str, progress: Progress) -> Iterator[str]:
    """The units of a source that are not empty, passed on in C: a corpus may have a billion of them."""
    if isinstance(source, HubDataset):
        from langslice.corpus.hub_datasets import read_dataset

        return filter(None, read_dataset(source, text_field, progress))
    return filter(None, chain.from_iterable(_read_file(source, text_field, progress)))


def read_part(
    source: CorpusFile | HubDataset, start: int, end: int | None, text_field: str, progress: Progress | None = None
) -> Iterator[str]:
    """Yield the units of a source, or those whose line begins at bytes `start` to `end` of it; empty ones are passed over.

    end     None for all; otherwise the source is a text or jsonl file that is not compressed
    Raises  CorpusError as `read_texts` does, but not for a part without text; lines are counted from the part's beginning
    """
    if isinstance(source, HubDataset) or end is None:
        yield from _units_of(source, text_field, progress or _ignore)
        return
    try:
        with source.path.open("rb") as file:
            first, last = _line_start(file, start), _line_start(file, end)
            file.seek(first)
            stream: Any = _Stretch(file, last - first)
            if source.format == "txt":
                batches: Iterator[Iterable[str]] = _lines(stream, source, opens=start == 0)
            else:
                batches = _records(stream, source, text_field, opens=start == 0)
            yield from filter(None, chain.from_iterable(batches))
    except OSError as error:
        raise CorpusError(f"{source.path}: cannot be read ({error})", "the file is damaged or truncated") from error
    except CorpusError as error:
        if not start:
            raise
        raise CorpusError(f"{error.message} (lines and bytes counted from byte {first:,} of it)", error.hint) from error


def _line_start(file: IO[bytes], position: int) -> int:
    """Where the first line begins that begins at `position` or after it; the file's end where none does."""
    if position == 0:
        return 0
    file.seek(position - 1)
    while (block := file.read(BLOCK_BYTES)) and b"\n" not in block:
        pass
    return file.tell() - len(block) + block.index(b"\n") + 1 if block else file.tell()


class _Stretch:
    """So many bytes of a file, from where it is."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file, self._left = file, size_bytes

    def read(self, size: int) -> bytes:
        block = self._file.read(min(size, self._left))
        self._left -= len(block)
        return block


def _read_file(file: CorpusFile, text_field: str, progress: Progress) -> Iterator[Iterable[str]]:
    """Yield the units of a file, those of a block at a time; some may be empty."""
    try:
        with _opened(file, progress) as stream:
            if file.format == "txt":
                yield from _lines(stream, file)
            elif file.format == "jsonl":
                yield from _records(stream, file, text_field)
            else:
                yield from _rows(stream, file, text_field)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{file.path}: cannot be read ({error})", "the file is damaged or truncated") from error


class _CountingFile(io.FileIO):
    """A file that reports the bytes that are read from it."""

    progress: Progress

    def readinto(self, buffer: Any, /) -> int:
        size = super().readinto(buffer)
        self.progress(size or 0)
        return size or 0


@contextmanager
def _opened(file: CorpusFile, progress: Progress) -> Iterator[IO[bytes]]:
    """Open a file, decompressed as it is read; parquet, which is read from its end, through a temporary file."""
    raw = _CountingFile(file.path)
    raw.progress = progress
    with io.BufferedReader(raw, BLOCK_BYTES) as buffered:
        stream: IO[bytes] = buffered
        if file.compression == "gz":
            stream = gzip.GzipFile(fileobj=buffered)  # type: ignore[assignment]
        elif file.compression == "zst":
            stream = _Zstandard(buffered)  # type: ignore[assignment]
        if file.format == "parquet" and file.compression:
            with tempfile.TemporaryFile() as plain:
                while block := stream.read(BLOCK_BYTES):
                    plain.write(block)
                plain.seek(0)
                yield plain
        else:
            yield stream


class _Zstandard(io.RawIOBase):
    """Decompressed zstandard frames; unlike the library's reader it refuses a stream that ends inside a frame."""

    def __init__(self, source: IO[bytes]) -> None:
        import zstandard

        self._source, self._error = source, zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._waiting = b""  # compressed
        self._ready = b""  # decompressed

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes; fewer only at the end."""
        parts, missing = [], size
        while missing:
            if not self._ready and not self._advance():
                break
            part, self._ready = self._ready[:missing], self._ready[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _advance(self) -> bool:
        while not self._ready:
            self._waiting = self._waiting or self._source.read(BLOCK_BYTES // 16)
            if not self._waiting:
                if self._frame is not None:
                    raise EOFError("the file ends inside a zstandard frame")
                return False
            self._frame = self._frame or self._new()
            try:
                self._ready = self._frame.decompress(self._waiting)
            except self._error as error:
                raise OSError(str(error)) from error
            self._waiting = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        return True


def _line_blocks(stream: IO[bytes], file: CorpusFile, *, opens: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """Yield (whole lines, number of the first from 1, byte offset of the first); the last may lack its line end.

    opens  whether the stream begins where the file does, and may have a byte order mark there
    """
    pending: list[bytes] = []
    held, number, offset = 0, 1, 0
    first = stream.read(len(BOM))
    marked = opens and first == BOM
    block = (b"" if marked else first) + stream.read(BLOCK_BYTES)
    offset = len(BOM) if marked else 0
    while block:
        end = block.rfind(b"\n") + 1
        if end:
            lines = b"".join([*pending, block[:end]])
            yield lines, number, offset
            number += lines.count(b"\n")
            offset += len(lines)
            pending, held = [], 0
        pending.append(block[end:])
        held += len(block) - end
        if held > LONGEST_LINE:
            raise CorpusError(
                f"{file.path}:{number}: a line of more than {LONGEST_LINE >> 20} MB",
                "break the text into lines, or into records of a jsonl file",
            )
        block = stream.read(BLOCK_BYTES)
    if held:
        yield b"".join(pending), number, offset


def _decoded(lines: bytes, number: int, offset: int, file: CorpusFile) -> str:
    try:
        return lines.decode()
    except UnicodeDecodeError as error:
        line = number + lines.count(b"\n", 0, error.start)
        raise CorpusError(
            f"{file.path}:{line}: not valid UTF-8 at byte {offset + error.start} "
            f"(0x{lines[error.start]:02x}, {error.reason})",
            "convert the file to UTF-8, for example with iconv",
        ) from error


def _lines(stream: IO[bytes], file: CorpusFile, *, opens: bool = True) -> Iterator[list[str]]:
    for lines, number, offset in _line_blocks(stream, file, opens=opens):
        text = _decoded(lines, number, offset, file)
        units = text.split("\n")  # not splitlines, which would also part at U+2028, form feeds and others
        if "\r" in text:
            units = [unit.removesuffix("\r") for unit in units]
        yield units


def _records(stream: IO[bytes], file: CorpusFile, text_field: str, *, opens: bool = True) -> Iterator[Iterator[str]]:
    for lines, number, offset in _line_blocks(stream, file, opens=opens):
        records = enumerate(_decoded(lines, number, offset, file).split("\n"), number)
        yield (
            _field_of(record, text_field, f"{file.path}:{line}")
            for line, record in records
            if record and not record.isspace()
        )


def _field_of(line: str, text_field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error})", "a jsonl file holds one JSON object a line") from error
    if not isinstance(record, dict):
        raise CorpusError(f"{where}: a JSON {type(record).__name__}, expected an object", "one JSON object a line")
    if text_field not in record:
        fields = ", ".join(record) or "none"
        raise CorpusError(f"{where}: no field {text_field!r}; found: {fields}", "name the field with --text-field")
    text = record[text_field]
    if not isinstance(text, str):
        raise CorpusError(f"{where}: field {text_field!r} is {type(text).__name__}, expected a string")
    if not text.isascii():
        _refuse_half_pairs(text, where)
    return text


def _refuse_half_pairs(text: str, where: str) -> None:
    """Refuse what JSON allows and Unicode does not: an escape of half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: half of a surrogate pair at character {error.start}", "the text was split wrongly; repair it"
        ) from error


def _rows(stream: IO[bytes], file: CorpusFile, text_field: str) -> Iterator[list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if stream.seek(0, os.SEEK_END) == 0:
        raise CorpusError(f"{file.path}: zero bytes", "leave it out")
    stream.seek(0)
    try:
        table = pq.ParquetFile(stream)
        if text_field not in table.schema_arrow.names:
            fields = ", ".join(table.schema_arrow.names)
            raise CorpusError(f"{file.path}: no column {text_field!r}; found: {fields}", "name it with --text-field")
        kind = table.schema_arrow.field(text_field).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
            raise CorpusError(f"{file.path}: column {text_field!r} is {kind}, expected strings")
        row = 0
        for batch in table.iter_batches(batch_size=1024, columns=[text_field]):
            texts = batch.column(0).to_pylist()
            if None in texts:
                raise CorpusError(
                    f"{file.path}: row {row + texts.index(None)} of column {text_field!r} is null", "filter such rows"
                )
            row += len(texts)
            yield texts
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise CorpusError(f"{file.path}: cannot be read as parquet ({error})", "the file is damaged") from error
