"""tokenizer_config.json, special_tokens_map.json and added_tokens.json: the tokens they name and the ids they carry.

These files are next to the vocabulary and are read by transformers only. Tokens that they name are always kept;
their ids are renumbered; every other key is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langslice.errors import TokenizerError
from langslice.files.json_forms import check_form, parse_json
from langslice.tokenizer.document import Json

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
UNKNOWN_ID = "unk_id"
"""Written by transformers 5 for tokenizers made of a SentencePiece model: its unknown piece, as that file numbers it."""

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# The order in which transformers appends named tokens that the tokenizer itself lacks.
_TOKEN_KEYS = (
    *NAMED_TOKENS, "additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens",
)  # fmt: skip
_ID_NAME = re.compile(r"(^|_)(id|ids|idx|index|indices)$")
_NOT_IDS = {
    "pad_token_type_id",
    "cls_token_segment_id",
    "sequence_a_segment_id",
    "sequence_b_segment_id",
    "pad_token_segment_id",
}
_PLAIN_NUMBERS = {
    "num_special_tokens_to_add",
    "model_max_length",
    "max_length",
    "extra_ids",
    "image_seq_length",
    "num_madeup_words",
}
_TOKEN = (None, str, {"content": str})
_NAMED = {f"{name}?": (_TOKEN, [_TOKEN], {"*": _TOKEN}) for name in _TOKEN_KEYS}
_FORMS: dict[str, Any] = {
    CONFIG_FILE: {**_NAMED, "added_tokens_decoder?": {"*": (str, {"content": str})}},
    SPECIAL_FILE: _NAMED,
    ADDED_FILE: {"*": int},
}


def read_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings files of a folder by name; those that are absent are left out."""
    found = {}
    for name in (CONFIG_FILE, SPECIAL_FILE, ADDED_FILE):
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = parse_json(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise TokenizerError(f"{path} is not JSON: {error}", hint="download the file again") from error
        if not isinstance(content, dict):
            raise TokenizerError(f"{path} holds a {type(content).__name__}, expected an object")
        check_form(content, _FORMS[name], str(path), TokenizerError, "download the file again")
        found[name] = content
    return found


def declared_tokens(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int | None, Mapping[str, Any]]]:
    """(content, id or None, flags) of every token that the settings name, those with an id first, ids ascending."""
    with_id: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for content, token_id in settings.get(ADDED_FILE, {}).items():
        with_id[int(token_id)] = (content, {})
    for token_id, entry in settings.get(CONFIG_FILE, {}).get("added_tokens_decoder", {}).items():
        with_id[int(token_id)] = (_content(entry), entry if isinstance(entry, dict) else {})
    for token_id, (content, flags) in sorted(with_id.items()):
        yield content, token_id, flags
    for name in (CONFIG_FILE, SPECIAL_FILE):
        for key in _TOKEN_KEYS:
            for entry in _entries(settings.get(name, {}).get(key)):
                yield _content(entry), None, entry if isinstance(entry, dict) else {}


def declared_named(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name -> text of the special tokens that have one: {"bos_token": "<s>"}."""
    found: dict[str, str] = {}
    for name in (CONFIG_FILE, SPECIAL_FILE):
        for key in NAMED_TOKENS:
            value = settings.get(name, {}).get(key)
            if value and (isinstance(value, str) or (isinstance(value, dict) and "content" in value)):
                found.setdefault(key, _content(value))
    return found


def named_tokens(settings: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Every text that is in a settings file in a place of its own; lists of tokens and tables by id only list."""
    found: set[str] = set()
    for name in (CONFIG_FILE, SPECIAL_FILE):
        for key, value in settings.get(name, {}).items():
            if key == "added_tokens_decoder" or isinstance(value, list):
                continue
            for entry in _entries(value):
                if isinstance(entry, str) or (isinstance(entry, dict) and "content" in entry):
                    found.add(_content(entry))
    return frozenset(found)


def _entries(value: Json) -> Sequence[Json]:
    if value is None or value == "":
        return ()
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and "content" not in value:  # extra_special_tokens: name -> token
        return list(value.values())
    return (value,)


def _content(entry: Json) -> str:
    return str(entry["content"]) if isinstance(entry, dict) else str(entry)


def renumber_settings(
    name: str, content: Mapping[str, Any], old_to_new: Mapping[int, int], where: str
) -> dict[str, Any]:
    """The content of one settings file with every id renumbered.

    Raises  TokenizerError for an id that is not kept, or an integer whose name says id and that is not understood
    """
    if name == ADDED_FILE:
        return {token: _renumbered(int(old), old_to_new, f"{where}, {token!r}") for token, old in content.items()}
    changed: dict[str, Any] = {}
    for key, value in content.items():
        if key == "added_tokens_decoder":
            changed[key] = {
                str(_renumbered(int(old), old_to_new, f"{where}, {key}")): entry for old, entry in value.items()
            }
        elif key == UNKNOWN_ID or (key.endswith(("_token_id", "_token_ids")) and key not in _NOT_IDS):
            changed[key] = _renumbered_any(value, old_to_new, f"{where}, {key}")
        elif key == "vocab_size" and isinstance(value, int):
            changed[key] = len(old_to_new)
        else:
            _refuse_hidden_ids(key, value, where)
            changed[key] = value
    return changed


def _renumbered_any(value: Json, old_to_new: Mapping[int, int], where: str) -> Json:
    if isinstance(value, list):
        return [_renumbered_any(item, old_to_new, where) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return _renumbered(value, old_to_new, where)
    return value


def _renumbered(old: int, old_to_new: Mapping[int, int], where: str) -> int:
    if old not in old_to_new:
        raise TokenizerError(
            f"{where}: id {old} is used but not kept", hint="add its token to the plan, or remove the entry"
        )
    return old_to_new[old]


def _refuse_hidden_ids(key: str, value: Json, where: str) -> None:
    """Stop where a number's name says that it is a token id and nobody has said otherwise."""
    if isinstance(value, Mapping):
        for inner, item in value.items():
            _refuse_hidden_ids(str(inner), item, f"{where}, {key}")
        return
    items = value if isinstance(value, list) else [value]
    numbers = any(isinstance(item, int) and not isinstance(item, bool) for item in items)
    if numbers and _ID_NAME.search(key) and key not in _NOT_IDS | _PLAIN_NUMBERS:
        raise TokenizerError(
            f"{where}: {key} = {value!r} may hold token ids and is not understood", hint="remove the key if it does not"
        )
