"""Open the tokenizer of a model folder: which files it has, what kind it is, which ids are special.

tokenizer.json is read by document.py, without loading the tokenizer itself. A folder with only the files of slow
tokenizers is opened through transformers' own classes, which know how each family numbers its tokens; code from the
folder is never run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import NoTokenizerError, TokenizerError
from langslice.tokenizer.characters import character_tables, open_characters
from langslice.tokenizer.document import Document, Json, added_without, read_document
from langslice.tokenizer.m2m100 import is_m2m100, open_m2m100
from langslice.tokenizer.marian import is_marian, open_marian
from langslice.tokenizer.rewrite import TOKENIZER_FILE, added_entry, processor_ids
from langslice.tokenizer.rowless_tokens import backend_without, document_without, settings_without, tokens_beyond
from langslice.tokenizer.settings import declared_tokens, read_settings
from langslice.tokenizer.slow_files import vocabulary_files
from langslice.tokenizer.slow_tokenizers import open_by_class
from langslice.tokenizer.source import SourceTokenizer
from langslice.tokenizer.surface import byte_alphabet, byte_value

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 512  # texts encoded at a time


def open_folder(
    folder: Path, model_type: str | None, rows: int | None = None, *, merges: bool = True
) -> SourceTokenizer:
    """See `langslice.tokenizer.open_tokenizer`."""
    if not folder.is_dir():
        raise TokenizerError(f"{folder} is not a folder")
    path = folder / TOKENIZER_FILE
    settings = read_settings(folder)
    if is_marian(
        folder
    ):  # first, since its unmodified class reads its three files even where a tokenizer.json is next to
        return open_marian(folder, settings)
    if path.is_file():
        return _from_document(folder, read_document(path, merges=merges), settings, partial(_load_file, path), rows)
    if is_m2m100(folder, settings, model_type):
        return open_m2m100(folder, settings)
    if vocabulary_files(folder):
        made = open_by_class(folder, settings, model_type)
        return _from_document(folder, made.document, made.settings, partial(backend_without, made.backend), rows)
    if character_tables(folder):
        return open_characters(folder)
    raise NoTokenizerError(
        f"{folder} holds no tokenizer: neither tokenizer.json nor a vocabulary file",
        hint="download the model's tokenizer files into the folder; layers, heads and neurons can be pruned without them",
    )


def _load_file(path: Path, left_out: Collection[str]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without some of its added tokens, whose text is then read as any other."""
    from tokenizers import Tokenizer

    try:
        return (
            Tokenizer.from_buffer(added_without(path.read_bytes(), left_out))
            if left_out
            else Tokenizer.from_file(str(path))
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a bare Exception for every reason, and panics, which are no Exceptions
        raise TokenizerError(
            f"{path}: the tokenizers library refuses it: {error}", hint="download the file again"
        ) from None


def _from_document(
    folder: Path,
    document: Document,
    settings: Mapping[str, Mapping[str, Any]],
    load: Callable[[Collection[str]], Tokenizer],
    rows: int | None,
) -> SourceTokenizer:
    document, extra, named = _with_declared(folder, document, settings)
    beyond = tokens_beyond(document, rows)
    if beyond and rows is not None:
        document, settings = document_without(document, beyond, rows), settings_without(settings, beyond)
        extra = [entry for entry in extra if entry["content"] not in beyond]
        named = {old for old in named if old < rows}
    kind = _kind(document)
    byte_ids = _byte_ids(document, kind)
    unknown = _unknown_id(document)
    special = {int(entry["id"]) for entry in document.added.values()} | named | _structural_ids(document, str(folder))
    special |= {unknown} - {None}  # type: ignore[arg-type]

    @cache
    def backend() -> Tokenizer:
        loaded = load(beyond)
        loaded.no_truncation()
        loaded.no_padding()
        _add_declared(loaded, extra)
        return loaded

    def encode(texts: Sequence[str]) -> list[list[int]]:
        # The library's encodings hold every token as text: of many texts they would take hundreds of megabytes.
        return [
            encoding.ids
            for start in range(0, len(texts), _BATCH)
            for encoding in backend().encode_batch_fast(list(texts[start : start + _BATCH]), add_special_tokens=False)
        ]

    def decode(ids: Sequence[int]) -> str:
        return str(backend().decode(list(ids), skip_special_tokens=False))

    files = [name for name in (TOKENIZER_FILE, *settings) if (folder / name).is_file()] + vocabulary_files(folder)
    return SourceTokenizer(
        folder=folder,
        kind=kind,
        tokens=document.tokens,
        special_ids=frozenset(special),
        byte_ids=frozenset(byte_ids),
        unknown_id=None if len(byte_ids) >= 256 else unknown,
        files=tuple(files),
        encode=encode,
        decode=decode,
        load_backend=backend,
        document=document,
        settings=settings,
        notes=tuple(f"the model has no row for the added token {token!r}, so it is left out" for token in beyond),
    )


def _add_declared(backend: Tokenizer, entries: Sequence[Mapping[str, Any]]) -> None:
    from tokenizers import AddedToken

    for entry in entries:
        flags = {key: value for key, value in entry.items() if key not in ("id", "content")}
        backend.add_tokens([AddedToken(entry["content"], **flags)])


def _with_declared(
    folder: Path, document: Document, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[Document, list[dict[str, Any]], set[int]]:
    """Add the tokens that only the settings declare, as transformers does on loading: one by one after the last.

    Returns  the document with them, their entries, and the ids of all tokens that the settings name
    """
    declared = list(declared_tokens(settings))
    contents = {content for content, _, _ in declared}
    index = {token: old for old, token in enumerate(document.tokens) if token in contents}
    added, named = dict(document.added), set()
    extra: list[dict[str, Any]] = []
    for content, token_id, flags in declared:
        if content not in index:
            index[content] = len(document.tokens) + len(extra)
            extra.append(added_entry(index[content], content, flags))
            added[content] = extra[-1]
        if token_id is not None and index[content] != token_id:
            raise TokenizerError(
                f"{folder}: tokenizer_config.json or added_tokens.json gives {content!r} the id {token_id}, "
                f"but every loader gives it {index[content]}",
                hint="save the tokenizer again with transformers, so that its files agree",
            )
        named.add(index[content])
    if extra:
        tokens = (*document.tokens, *(str(entry["content"]) for entry in extra))
        in_model = document.in_model + bytes(len(tokens) - len(document.in_model))
        document = replace(document, tokens=tokens, in_model=in_model, added=added)
    return document, extra, named


def _component_types(part: Json) -> set[str]:
    """Types of a normalizer, pre-tokenizer or decoder and of everything inside it."""
    if isinstance(part, list):
        return {name for item in part for name in _component_types(item)}
    if isinstance(part, dict):
        inside = {name for value in part.values() for name in _component_types(value)}
        return inside | ({part["type"]} if isinstance(part.get("type"), str) else set())
    return set()


def _kind(document: Document) -> str:
    if document.model_type != "BPE":
        return document.model_type.lower()
    parts = [document.skeleton.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
    if "ByteLevel" in _component_types(parts):
        return "byte-bpe"
    marked = document.skeleton["model"].get("byte_fallback") or "▁" in json.dumps(parts, ensure_ascii=False)
    return "spm-bpe" if marked else "char-bpe"


def _byte_ids(document: Document, kind: str) -> set[int]:
    if kind == "byte-bpe":
        model = document.skeleton["model"]
        prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
        symbols = {
            before + character + after
            for character in byte_alphabet()
            for before in {"", prefix}
            for after in {"", suffix}
        }
        return {old for old, token in enumerate(document.tokens) if token in symbols and document.in_model[old]}
    found = {old for old, token in enumerate(document.tokens) if token and byte_value(token) is not None}
    return found if document.skeleton["model"].get("byte_fallback") or len(found) == 256 else set()


def _unknown_id(document: Document) -> int | None:
    model = document.skeleton["model"]
    if document.model_type == "Unigram":
        return None if model.get("unk_id") is None else int(model["unk_id"])
    unknown = model.get("unk_token")
    if document.model_type == "WordPiece" and unknown not in document.tokens:
        raise TokenizerError(f"the unknown token {unknown!r} of the WordPiece model is not in its vocabulary")
    return document.tokens.index(unknown) if unknown is not None and unknown in document.tokens else None


def _structural_ids(document: Document, where: str) -> set[int]:
    """Ids that post-processing and padding put around texts."""
    ids = processor_ids(document.skeleton.get("post_processor"), f"{where}, post_processor")
    padding = document.skeleton.get("padding")
    if padding:
        ids.add(int(padding["pad_id"]))
    for old in ids:
        if old >= len(document.tokens) or document.tokens[old] is None:
            raise TokenizerError(f"{where}: post-processing or padding uses id {old}, which has no token")
    return ids
