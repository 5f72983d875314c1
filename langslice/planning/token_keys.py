"""Files that give each token a value: JSON objects keyed by token, and lines of a token, a tab and a number.

Sparse encoders keep the weights of a query's tokens so (idf.json, query_token_weights.txt).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError
from langslice.files.json_forms import parse_json

# No configuration has so many keys at its top, and no list of words that a model carries is so short.
LEAST_ENTRIES = 64
_SHARE = 0.9  # of the keys that must be tokens


def is_keyed(document: Any, tokens: Collection[str]) -> bool:
    """Whether an object gives tokens a number each that is not their id: weights, counts.

    Whole numbers are taken for ids of another vocabulary, unless they are the ids of these tokens (`gives_ids`).
    """
    if not isinstance(document, dict) or len(document) < LEAST_ENTRIES or not tokens:
        return False
    if not all(type(value) in (int, float) for value in document.values()):
        return False
    if all(type(value) is int for value in document.values()):
        return False
    return sum(key in tokens for key in document) >= _SHARE * len(document)


def gives_ids(document: Any, tokens: Mapping[str, int]) -> bool:
    """Whether an object gives every one of its tokens the id that it has."""
    return (
        isinstance(document, dict)
        and len(document) >= LEAST_ENTRIES
        and all(type(value) is int and tokens.get(key) == value for key, value in document.items())
    )


def has_keyed_lines(path: Path, tokens: Collection[str]) -> bool:
    """Whether a text holds lines of a token, a tab and a number, and hardly anything else."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        return False
    filled = [line for line in lines if line]
    if len(filled) < LEAST_ENTRIES or not tokens:
        return False
    keyed = sum(_is_number(line.rpartition("\t")[2]) and line.rpartition("\t")[0] in tokens for line in filled)
    return keyed >= _SHARE * len(filled)


def write_keyed(source: Path, target: Path, new_ids: Mapping[str, int | None]) -> None:
    """Write such a file without the tokens that go; keys that are no tokens stay, ids are renumbered.

    new_ids  token -> new id, None for one that goes
    """

    def stays(token: str) -> bool:
        return new_ids.get(token, 0) is not None

    if source.suffix != ".json":
        lines = source.read_text(encoding="utf-8").split("\n")
        target.write_text("\n".join(line for line in lines if stays(line.rpartition("\t")[0])), encoding="utf-8")
        return
    document = parse_json(source.read_bytes())
    if not isinstance(document, dict):
        raise CheckpointError(f"{source.name} is not a JSON object any more")
    kept = {token: value for token, value in document.items() if stays(token)}
    if all(type(value) is int for value in kept.values()):
        kept = {token: new_ids[token] for token in kept}
    text = json.dumps(kept, ensure_ascii=False, indent=2 if source.read_bytes()[:2] in (b"{\n", b"{\r") else None)
    target.write_text(text + "\n", encoding="utf-8")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
