"""Read rows and parallel lines of evaluation data: from local folders in the layouts they are published in, or the hub.

A pattern names a file below the data folder, such as `xcopa/test.{language}.jsonl`; `{language}` stands for every spelling
of a language. The folder may also be the data set's own.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langslice.errors import NoDataError, TaskError
from langslice.evaluation.codes import flores_code, spellings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class DataSource:
    """Where rows come from, and what they call things.

    columns    field of a template -> column
    label      column of the answer; empty where there is none
    values     value of that column -> label of the task; empty where values are the labels
    drop       values whose rows are left out
    file       pattern below the data folder; empty where the source is on the hub
    hub        data set on the hub, its configuration (with {language} or {flores}) and split
    languages  the only ones it has; any where empty
    language_column  column that says each row's language, where one file holds several
    header     column names of a file without a line of them
    """

    columns: Mapping[str, str]
    label: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    file: str = ""
    hub: str = ""
    config: str = ""
    split: str = "test"
    languages: tuple[str, ...] = ()
    language_column: str = ""
    header: tuple[str, ...] = ()


def find_file(data: Path, pattern: str, language: str) -> Path | None:
    """The file of a language below a data folder; None where there is none."""
    for spelled in spellings(language):
        name = pattern.replace("{language}", spelled).replace("{flores}", flores_code(language))
        inner = name.split("/", 1)[-1]
        for candidate in (name, inner, f"*/{name}", f"*/*/{name}"):
            found = sorted(data.glob(candidate))
            if found:
                return found[0]
    return None


def read_source(
    sources: Sequence[DataSource], task: str, language: str, data: Path | None
) -> tuple[DataSource, list[Row], str]:
    """Rows of a language from the first source that has it.

    data     local folder; the hub is asked only where none is given
    Returns  the source, its rows, and the place to name in errors
    Raises   TaskError when no source has the language
    """
    fitting = [source for source in sources if not source.languages or language in source.languages]
    if data is not None:
        if not data.is_dir():
            raise TaskError(f"--data {data} is not a folder", "name the folder that holds the data sets")
        for source in fitting:
            path = find_file(data, source.file, language) if source.file else None
            if path is None:
                continue
            rows = _of_language(read_rows(path, source.header), source, language, path)
            if rows:
                return source, rows, str(path)
        looked = (
            ", ".join(dict.fromkeys(source.file for source in sources if source.file)) or "no local layout is known"
        )
        raise NoDataError(
            f"task {task}: no data in language {language}\n  below {data}\n  looked for {looked}",
            "add the file, leave the language out, or leave out --data to use the hub",
        )
    for source in fitting:
        if source.hub:
            return source, _read_hub(source, task, language), f"{source.hub} on the hub"
    raise NoDataError(
        f"task {task}: no data in language {language}\n  no data set of the hub is known for it",
        "name a folder of local files with --data",
    )


def read_rows(path: Path, header: Sequence[str] = ()) -> list[Row]:
    """Rows of a tsv, csv, jsonl, json or parquet file.

    header  column names, where the file has no line of them
    Raises  TaskError when the file cannot be read as what its name says
    """
    kind = path.suffix.lower()
    try:
        if kind in (".tsv", ".csv"):
            return _read_table(path, header, tabs=kind == ".tsv")
        if kind in (".jsonl", ".json"):
            text = path.read_text(encoding="utf-8-sig")
            # MARC is published as one object per line in files called .json.
            rows = (
                json.loads(text)
                if text.lstrip().startswith("[")
                else [json.loads(line) for line in text.split("\n") if line.strip()]
            )
        elif kind == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            raise TaskError(f"{path}: expected tsv, csv, jsonl, json or parquet", "convert the file")
    except (UnicodeDecodeError, ValueError, OSError) as error:
        raise TaskError(f"{path}: cannot be read as {kind[1:]}\n  {error}", "check the file") from error
    if not all(isinstance(row, dict) for row in rows):
        raise TaskError(f"{path}: expected one object a row", "each row names its columns")
    return list(rows)


def _read_table(path: Path, header: Sequence[str], *, tabs: bool) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if tabs:
            # Published tsv files do not quote: a quotation mark is part of the text.
            lines = [line.rstrip("\r\n").split("\t") for line in file]
        else:
            lines = list(csv.reader(file))
    lines = [line for line in lines if line and line != [""]]
    names = list(header) or (lines.pop(0) if lines else [])
    for number, line in enumerate(lines):
        if len(line) < len(names):
            raise TaskError(
                f"{path}: row {number + 1} has {len(line)} columns, expected {len(names)}: {', '.join(names)}",
                "repair that line",
            )
    return [dict(zip(names, line, strict=False)) for line in lines]


def _of_language(rows: list[Row], source: DataSource, language: str, path: Path) -> list[Row]:
    if not source.language_column:
        return rows
    if rows and source.language_column not in rows[0]:
        raise missing_column(str(path), source.language_column, rows[0])
    return [row for row in rows if row[source.language_column] in spellings(language)]


def missing_column(place: str, column: str, row: Row) -> TaskError:
    """The error for a row without a column that its task needs."""
    return TaskError(
        f"{place}: no column {column!r}\n  found: {', '.join(map(str, row))}",
        "name the column in the task's `columns`, or repair the file",
    )


def _read_hub(source: DataSource, task: str, language: str) -> list[Row]:
    config = source.config.replace("{language}", language).replace("{flores}", flores_code(language)) or None
    where = f"{source.hub}" + (f":{config}" if config else "") + f"@{source.split}"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TaskError(
            f"task {task}: {where} is on the hub, which needs the package `datasets`",
            'pip install "langslice[datasets]", or name a folder of local files with --data',
        ) from error
    try:
        rows: list[Row] = [dict(row) for row in load_dataset(source.hub, config, split=source.split)]
    except Exception as error:  # `datasets` passes on the errors of every library under it
        raise NoDataError(
            f"task {task}: no data in language {language}: {where} cannot be opened\n  {type(error).__name__}: {error}",
            "check the network and the language, or name a folder of local files with --data",
        ) from error
    if not source.language_column:
        return rows
    return [row for row in rows if row.get(source.language_column) in spellings(language)]
