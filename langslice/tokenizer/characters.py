"""Models that spell: no tokenizer files, a table of characters in config.json.

A key ending in `_chars` holds a string whose n-th character has the id n; the first ids, written as `_`, are padding,
start, end and unknown. An encoder and a decoder may have tables of their own over one embedding. The table is part of
config.json, so whoever writes that file writes the sliced table, see `sliced_table`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from langslice.errors import TokenizerError
from langslice.tokenizer.source import SourceTokenizer

_PLACEHOLDER, _UNKNOWN = "_", 3


def character_tables(folder: Path) -> Mapping[str, str]:
    """The character tables of a folder's config.json by key, the longest first; empty where there are none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON: {error}", hint="download the file again") from error
    found = {key: value for key, value in config.items() if key.endswith("_chars") and isinstance(value, str)}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def open_characters(folder: Path) -> SourceTokenizer:
    """Read the character table of a model; with several, ids are spelled by the longest, and encoded with it."""
    tables = character_tables(folder)
    specials = {
        place
        for table in tables.values()
        for place, character in enumerate(table[: _UNKNOWN + 1])
        if character == _PLACEHOLDER
    }
    if len(specials) != _UNKNOWN + 1:
        raise TokenizerError(
            f"{folder / 'config.json'}: {', '.join(tables)} should begin with four {_PLACEHOLDER!r} "
            "(padding, start, end, unknown)"
        )
    table = next(iter(tables.values()))
    index = {character: place for place, character in enumerate(table) if place not in specials}

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [[index.get(character, _UNKNOWN) for character in text] for text in texts]

    def decode(ids: Sequence[int]) -> str:
        return "".join(table[old] for old in ids if old not in specials)

    return SourceTokenizer(
        folder=folder,
        kind="characters",
        tokens=tuple(table),
        special_ids=frozenset(specials),
        byte_ids=frozenset(),
        unknown_id=_UNKNOWN,
        files=(),
        encode=encode,
        decode=decode,
    )


def sliced_table(table: str, kept: Sequence[int]) -> str:
    """The characters of a table at the kept ids; ids beyond it are padding rows and have none."""
    return "".join(table[old] for old in kept if old < len(table))
