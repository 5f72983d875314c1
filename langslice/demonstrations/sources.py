"""Where demonstrations come from: parallel text, text in one language, source code.

Parallel text is a tsv file, two aligned text files, jsonl, or a dataset of the hub; the other kinds are whatever
langslice.corpus reads. Lines are never dropped from aligned files: a blank side is an error, since it hides a shift.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from langslice.corpus.sources import HubDataset, find_corpora
from langslice.errors import CorpusError

# fmt: off
CODE_SUFFIXES = frozenset((
    ".c", ".cc", ".cpp", ".cs", ".go", ".h", ".hpp", ".java", ".jl", ".js", ".kt", ".lua", ".m", ".php", ".pl", ".py", ".r",
    ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".ts",
))
# fmt: on


def read_pairs(paths: Sequence[str], fields: tuple[str, str], *, limit: int | None = None) -> list[tuple[str, str]]:
    """Read pairs of sentences.

    paths    one .tsv file (source, tab, target), one .jsonl file or hub dataset with both `fields`, or two text files
             whose lines belong together
    fields   names of source and target in jsonl records and datasets
    limit    stop after so many
    Raises   CorpusError, naming the line, for sides that differ in length, a blank side, or a field that is missing
    """
    if len(paths) == 2:
        found: Iterator[tuple[str, str, str]] = _aligned(Path(paths[0]).expanduser(), Path(paths[1]).expanduser())
    elif len(paths) != 1:
        raise CorpusError(
            f"parallel text is one file or two aligned ones, found {len(paths)}", "pass --parallel once or twice"
        )
    elif paths[0].lower().endswith((".tsv", ".tsv.gz")):
        found = _tabbed(Path(paths[0]).expanduser())
    elif paths[0].lower().endswith((".jsonl", ".jsonl.gz", ".ndjson")):
        found = _records(Path(paths[0]).expanduser(), fields)
    else:
        found = _dataset(paths[0], fields)
    pairs: list[tuple[str, str]] = []
    for source, target, where in found:
        if not source.strip() or not target.strip():
            side = "source" if not source.strip() else "target"
            raise CorpusError(f"{where}: the {side} is blank", "remove the pair on both sides")
        pairs.append((source.strip(), target.strip()))
        if limit is not None and len(pairs) >= limit:
            break
    if not pairs:
        raise CorpusError(f"{', '.join(paths)}: holds no pairs")
    return pairs


def read_sentences(corpus: Sequence[str], *, text_field: str = "text", limit: int | None = None) -> list[str]:
    """Read the units of text corpora, as `langslice slice --corpus` does.

    Raises  CorpusError
    """
    from langslice.corpus import read_texts

    found = []
    for text in read_texts(corpus, text_field=text_field):
        if text.strip():
            found.append(text.strip())
        if limit is not None and len(found) >= limit:
            break
    return found


def read_code(paths: Sequence[str], *, text_field: str = "text", limit: int | None = None) -> list[str]:
    """Read source files whole: folders (by suffix, sorted), single files, or a field of jsonl records.

    Raises  CorpusError when a path holds no code
    """
    found: list[str] = []
    for path in paths:
        found += _code_of(Path(path).expanduser(), path, text_field)
    return found[:limit]


def _code_of(path: Path, given: str, text_field: str) -> list[str]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in CODE_SUFFIXES and file.is_file())
        found = [text for file in files if (text := _text(file)).strip()]
        if not found:
            raise CorpusError(f"{given}: holds no source file", f"known suffixes: {' '.join(sorted(CODE_SUFFIXES))}")
        return found
    if path.suffix.lower() in CODE_SUFFIXES:
        return [_text(path)]
    return read_sentences([given], text_field=text_field)


def _aligned(source: Path, target: Path) -> Iterator[tuple[str, str, str]]:
    left, right = _lines(source), _lines(target)
    if len(left) != len(right):
        raise CorpusError(
            f"aligned files differ in length\n  {source}: {len(left):,} lines\n  {target}: {len(right):,} lines",
            "line i of both must say the same; a line is missing in one of them",
        )
    for number, (one, other) in enumerate(zip(left, right, strict=True), 1):
        yield one, other, f"{source}:{number}"


def _tabbed(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(_lines(path), 1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise CorpusError(
                f"{path}:{number}: expected source, tab, target, found {len(columns)} columns",
                "cut the file to two columns, for example with cut -f1,2",
            )
        yield columns[0], columns[1], f"{path}:{number}"


def _records(path: Path, fields: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: not JSON ({error})", "one JSON object a line") from None
        source, target = _both(record, fields, where)
        yield source, target, where


def _dataset(name: str, fields: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
    source = find_corpora([name])[0][0]
    if not isinstance(source, HubDataset):
        raise CorpusError(
            f"{name}: not a file of pairs", "a .tsv or .jsonl file, two aligned files, or a dataset of the hub"
        )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CorpusError(
            f"{name}: not a local path, and datasets of the hub need the package `datasets`",
            'pip install "langslice[datasets]"',
        ) from error
    try:
        records = iter(load_dataset(source.name, source.config, split=source.split, streaming=True))
    except Exception as error:
        raise CorpusError(
            f"{name}: cannot be opened: {type(error).__name__}: {error}",
            "check the name, the configuration (owner/name:config), the split (@split) and the network",
        ) from error
    for number, record in enumerate(records):
        where = f"{name}: record {number}"
        left, right = _both(record, fields, where)
        yield left, right, where


def _both(record: Any, fields: tuple[str, str], where: str) -> tuple[str, str]:
    # OPUS-like datasets keep both sides in one field.
    inner = record.get("translation") if isinstance(record, dict) else None
    record = inner if isinstance(inner, dict) else record
    found = []
    for field in fields:
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            names = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise CorpusError(
                f"{where}: no text in field {field!r}; found: {names}", "name both with --fields SOURCE,TARGET"
            )
        found.append(text)
    return found[0], found[1]


def _lines(path: Path) -> list[str]:
    text = _text(path)
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file", "check the path") from None
    except (OSError, EOFError) as error:
        raise CorpusError(f"{path}: cannot be read ({error})", "check the path and its rights") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not valid UTF-8 at byte {error.start}", "convert the file to UTF-8") from None
