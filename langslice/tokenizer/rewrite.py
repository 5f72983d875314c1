"""Write a tokenizer.json for the kept tokens, and check it by loading it.

Everything that holds an id is renumbered: model.vocab, Unigram's unk_id, post-processors, padding and added tokens.
The normalizer, pre-tokenizer and decoder hold none and pass unchanged. The library gives added tokens that
model.vocab lacks the ids after it, in list order, so model.vocab must be dense and every added token that is
before a model token must be part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import OPEN_AN_ISSUE, TokenizerError
from langslice.files.json_forms import FixedList, check_form
from langslice.files.memory import return_freed_memory
from langslice.tokenizer.bpe import merges_to_keep
from langslice.tokenizer.document import Document, Json, refuse_unknown_keys
from langslice.tokenizer.extension import NewToken, new_scores

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
_WINDOW = 4096  # entries written at a time
quote = json.JSONEncoder(ensure_ascii=False).encode
"""A value as JSON, non-ASCII characters as they are; `json.dumps` would make an encoder for every call."""
_ADDED_DEFAULTS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


class HashedFile:
    """A file for writing that knows the sha256 of what was written."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("xb")
        self._hash = hashlib.sha256()

    def write(self, text: str) -> None:
        """Write text as UTF-8."""
        self.write_bytes(text.encode())

    def write_bytes(self, content: bytes) -> None:
        """Write bytes as they are."""
        self._stream.write(content)
        self._hash.update(content)

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    @property
    def sha256(self) -> str:
        """The sha256 of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()


def write_whole(path: Path, content: bytes) -> str:
    """Write a small file at once and return its sha256."""
    with HashedFile(path) as target:
        target.write_bytes(content)
    return target.sha256


def write_json(path: Path, content: Json) -> str:
    """Write a small JSON file, non-ASCII characters as they are, and return its sha256."""
    return write_whole(path, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())


def write_document(
    document: Document, kept: Sequence[int], path: Path, *, where: str, extension: Sequence[NewToken] = ()
) -> str:
    """Write the tokenizer.json restricted to `kept` (ascending old ids; new id = position); returns its sha256.

    where      names the source's file in errors
    extension  tokens that follow
    Example    kept (0, 2, 3) of the vocabulary a b c d gives a: 0, c: 1, d: 2
    """
    old_to_new = {old: new for new, old in enumerate(kept)}
    # New tokens have the last ids, so all before them must be in model.vocab as well.
    head = len(kept) if extension else _model_size(document, kept)
    top = renumbered_parts(document, old_to_new, where)
    with HashedFile(path) as file:
        separator = "{\n  "
        for key, value in top.items():
            file.write(f"{separator}{json.dumps(key)}: ")
            if key == "model":
                _write_model(document, kept[:head], kept, extension, value, file)
            else:
                file.write(json.dumps(value, ensure_ascii=False))
            separator = ",\n  "
        file.write("\n}\n")
    return file.sha256


def check_written(path: Path, tokens: Sequence[str]) -> None:
    """Load a written tokenizer.json and compare every id with what it should be, in both directions.

    tokens  token string of each new id
    Raises  TokenizerError at the first id that differs
    """
    from tokenizers import Tokenizer

    return_freed_memory()
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for every reason
        raise TokenizerError(f"{path}: the tokenizers library refuses what was written: {error}") from error
    size = loaded.get_vocab_size(with_added_tokens=True)
    if size != len(tokens):
        raise TokenizerError(f"{path}: loads with {size} tokens, expected {len(tokens)}")
    _compare_loaded(path, loaded, tokens)
    del loaded
    return_freed_memory()


def _compare_loaded(path: Path, loaded: Tokenizer, tokens: Sequence[str]) -> None:
    """Every id has its token, and every token its id: of equal tokens the last."""
    for new, token in enumerate(tokens):
        if loaded.id_to_token(new) != token:
            raise TokenizerError(f"{path}: id {new} loads as {loaded.id_to_token(new)!r}, expected {token!r}")
        found = loaded.token_to_id(token)
        later = found is not None and new < found < len(tokens) and tokens[found] == token  # compared in its turn
        if found != new and not later:
            raise TokenizerError(f"{path}: {token!r} loads with id {found}, expected {new}")


def _model_size(document: Document, kept: Sequence[int]) -> int:
    """How many of the kept tokens model.vocab must hold: all up to the last one that it held before."""
    return 1 + max((new for new, old in enumerate(kept) if document.in_model[old]), default=-1)


def _write_model(
    document: Document,
    listed: Sequence[int],
    kept: Sequence[int],
    extension: Sequence[NewToken],
    model: Mapping[str, Any],
    file: HashedFile,
) -> None:
    """Write `model`; `listed` are those of the kept tokens that model.vocab holds."""
    separator = "{\n    "
    for key, value in model.items():
        file.write(f"{separator}{json.dumps(key)}: ")
        if key == "vocab" and document.model_type == "Unigram":
            old = ([document.tokens[at], score] for at, score in zip(listed, new_scores(document, listed), strict=True))
            _write_entries(chain(old, ([one.token, one.score] for one in extension)), "[]", file)
        elif key == "vocab":
            tokens = chain((document.tokens[old] for old in listed), (one.token for one in extension))
            _write_entries(((token, new) for new, token in enumerate(tokens)), "{}", file)
        elif key == "merges":
            made = (one.parts for one in extension if one.parts)
            _write_entries(chain(_kept_merges(document, kept), made), "[]", file)
        else:
            file.write(json.dumps(value, ensure_ascii=False))
        separator = ",\n    "
    file.write("\n  }")


def _kept_merges(document: Document, kept: Sequence[int]) -> Iterator[tuple[str | None, str | None]]:
    if document.merges is None:
        return
    marked = merges_to_keep(document.merges, kept, len(document.tokens))
    for left, right in zip(document.merges.left[marked].tolist(), document.merges.right[marked].tolist(), strict=True):
        yield document.tokens[left], document.tokens[right]


def _write_entries(entries: Iterator[Any], brackets: str, file: HashedFile) -> None:
    """Write a large array or object, one entry per line, some thousand entries at a time."""
    window: list[str] = []
    separator = brackets[0] + "\n      "
    wrote = False
    for entry in entries:
        if brackets == "{}":
            window.append(f"{quote(entry[0])}: {entry[1]}")
        else:
            window.append(f"[{quote(entry[0])}, {quote(entry[1])}]")
        if len(window) == _WINDOW:
            file.write(separator + ",\n      ".join(window))
            separator, wrote = ",\n      ", True
            window.clear()
    if window:
        file.write(separator + ",\n      ".join(window))
        wrote = True
    file.write("\n    " + brackets[1] if wrote else brackets)


def renumbered_parts(document: Document, old_to_new: Mapping[int, int], where: str) -> dict[str, Any]:
    """A tokenizer.json's object with every id renumbered, but for model.vocab and model.merges.

    Raises  TokenizerError for an id that is not kept, or a part that is not understood
    """
    top = dict(document.skeleton)
    model = dict(top["model"])
    if model.get("unk_id") is not None:
        model["unk_id"] = _new_id(model["unk_id"], old_to_new, f"{where}, model.unk_id")
    top["model"] = model
    top["added_tokens"] = [
        {**entry, "id": _new_id(entry["id"], old_to_new, f"{where}, added_tokens")} for entry in document.added.values()
    ]
    top["post_processor"] = _renumbered_processor(top.get("post_processor"), old_to_new, f"{where}, post_processor")
    if top.get("padding"):
        padding = dict(top["padding"])
        padding["pad_id"] = _new_id(padding["pad_id"], old_to_new, f"{where}, padding.pad_id")
        top["padding"] = padding
    for key in ("normalizer", "pre_tokenizer", "decoder"):
        _refuse_ids(top.get(key), f"{where}, {key}")
    return top


def _new_id(old: int, old_to_new: Mapping[int, int], where: str) -> int:
    if old not in old_to_new:
        raise TokenizerError(f"{where}: id {old} is used but not kept", hint="the plan must keep special tokens")
    return old_to_new[old]


_PROCESSORS: dict[str, Any] = {
    "Sequence": {"processors": [{"type": str}]},
    "TemplateProcessing": {"special_tokens": {"*": {"ids": [int]}}},
    **{
        key: {"sep": FixedList(str, int), "cls": FixedList(str, int)} for key in ("BertProcessing", "RobertaProcessing")
    },
}


def processor_ids(processor: Json, where: str) -> set[int]:
    """Ids that a post-processor puts around texts."""
    if processor is None or processor.get("type") == "ByteLevel":
        return set()
    kind = processor.get("type")
    if kind in _PROCESSORS:
        check_form(processor, _PROCESSORS[kind], where, TokenizerError)
    if kind == "Sequence":
        return {old for inner in processor["processors"] for old in processor_ids(inner, where)}
    if kind == "TemplateProcessing":
        # Switches of ByteLevel, which older versions of the library wrote here: it reads them and ignores them.
        others = {key: value for key, value in processor.items() if not isinstance(value, bool)}
        refuse_unknown_keys(others, {"type", "single", "pair", "special_tokens"}, where)
        return {old for entry in processor["special_tokens"].values() for old in entry["ids"]}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return {processor["sep"][1], processor["cls"][1]}
    raise TokenizerError(
        f"{where}: post-processor {kind!r} is not understood and may hold token ids",
        hint=OPEN_AN_ISSUE,
    )


def _renumbered_processor(processor: Json, old_to_new: Mapping[int, int], where: str) -> Json:
    processor_ids(processor, where)  # refuses unknown kinds
    if processor is None or processor["type"] == "ByteLevel":
        return processor
    if processor["type"] == "Sequence":
        inner = [_renumbered_processor(part, old_to_new, where) for part in processor["processors"]]
        return {**processor, "processors": inner}
    if processor["type"] == "TemplateProcessing":
        special = {
            name: {**entry, "ids": [_new_id(old, old_to_new, where) for old in entry["ids"]]}
            for name, entry in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": special}
    renumbered = {name: [processor[name][0], _new_id(processor[name][1], old_to_new, where)] for name in ("sep", "cls")}
    return {**processor, **renumbered}


def _refuse_ids(part: Json, where: str) -> None:
    """Stop at a normalizer, pre-tokenizer or decoder with an integer whose name says id."""
    if isinstance(part, list):
        for item in part:
            _refuse_ids(item, where)
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("id", "ids") or key.endswith(("_id", "_ids")):
                raise TokenizerError(f"{where}: {part.get('type')} has {key} = {value!r}, which may hold token ids")
            _refuse_ids(value, where)


def added_entry(token_id: int, content: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """An added_tokens entry for a token that only tokenizer_config.json or added_tokens.json declares."""
    known = {key: bool(value) for key, value in flags.items() if key in _ADDED_DEFAULTS}
    return {"id": token_id, "content": content, **_ADDED_DEFAULTS, **known}
