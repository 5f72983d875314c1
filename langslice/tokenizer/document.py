"""Read a tokenizer.json without holding its Python twin in memory.

Two parts of the file are large: `model.vocab` and `model.merges`. They are found by a scan of the raw bytes and
decoded in windows of a few thousand entries, straight into tuples and arrays; everything else (the skeleton) is plain
`json.loads`. Reading Gemma's half a million merges this way needs 6 MB for them instead of 90.

This module knows the layout of the file, not what a slice does with it: see rewrite.py.
Source: the serialisation of the `tokenizers` library (Model, AddedVocabulary), tried on versions 0.21 to 0.23.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import OPEN_AN_ISSUE, TokenizerError
from langslice.files.json_forms import FixedList, check_form

Json = Any
"""What `json.loads` returns."""

_MOST_HOLES = 1 << 20  # ids without a token; more would be a damaged number, and a list that fills the memory
_WINDOW = 4096  # entries decoded at a time
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_FLAT_ARRAY = rb'\[[^\[\]"]*(?:' + _STRING + rb'[^\[\]"]*)*\]'
_ENTRY = rb"\s*(?:" + _STRING + rb"(?:\s*:\s*-?\d+)?|" + _FLAT_ARRAY + rb")\s*"
_RUN = re.compile(rb"(?:" + _ENTRY + rb",){1,%d}" % _WINDOW, re.DOTALL)
_LAST = re.compile(_ENTRY, re.DOTALL)
# At most 256 at a time: the expression engine remembers every repetition until the match ends.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]+|' + _STRING + rb"){0,256}([{}\[\]]?)", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[^\s,{}\[\]]+", re.DOTALL)
_SPACE = re.compile(rb"[\s,:]*")

_MODEL_KEYS = {
    "BPE": {
        "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
        "ignore_merges", "vocab", "merges",
    },
    "Unigram": {"type", "unk_id", "vocab", "byte_fallback"},
    "WordPiece": {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"},
}  # fmt: skip
_TOP_KEYS = {
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
    "model",
}  # fmt: skip
_ADDED_KEYS = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}
_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), bool)
_TOP_FORM = {
    "added_tokens?": (None, [{"id": int, "content": str, **_FLAGS}]),
    "normalizer?": (None, {"type": str}),
    "pre_tokenizer?": (None, {"type": str}),
    "post_processor?": (None, {"type": str}),
    "decoder?": (None, {"type": str}),
    "padding?": (None, {"pad_id": int}),
    "model": {
        "unk_id?": (None, int), "unk_token?": (None, str), "continuing_subword_prefix?": (None, str),
        "end_of_word_suffix?": (None, str), "byte_fallback?": (None, bool), "ignore_merges?": (None, bool),
        "fuse_unk?": (None, bool), "dropout?": (None, float), "max_input_chars_per_word?": int,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Merges:
    """BPE merges by ascending rank, one for each pair (of a pair's duplicates the last counts, as in the library).

    left, right, product  (merges,) int32 token ids: `left` and `right` side by side become `product`
    """

    left: np.ndarray
    right: np.ndarray
    product: np.ndarray


@dataclass(frozen=True)
class Document:
    """A tokenizer.json in parts.

    skeleton     the file's object; model.vocab and model.merges are None in it where they were read apart
    model_type   "BPE" | "Unigram" | "WordPiece"
    tokens       (size,) token string by id, added tokens included; None where an id has no token
    in_model     (size,) 1 where model.vocab holds the id, else 0
    added        content of each added token -> its entry; the id is what the library gives it, in ascending order
    scores       (model size,) float64 for Unigram, else empty
    merges       for BPE, else None
    """

    skeleton: Mapping[str, Any]
    model_type: str
    tokens: tuple[str | None, ...]
    in_model: bytes
    added: Mapping[str, Mapping[str, Any]]
    scores: array[float]
    merges: Merges | None


def read_document(path: Path) -> Document:
    """Read a tokenizer.json.

    Raises  TokenizerError when it is not JSON, or holds a model, key or id that is not understood
    """
    return parse_document(path.read_bytes(), str(path))


def parse_document(raw: bytes, where: str) -> Document:
    """Read the bytes of a tokenizer.json; `where` names them in errors. See `read_document`."""
    try:
        spans = _large_spans(raw)
        skeleton = json.loads(_without(raw, spans))
        return _assemble(raw, spans, skeleton, where)
    except (
        ValueError,
        IndexError,
        RecursionError,
        OverflowError,
    ) as error:  # decoding JSON and Unicode fails with ValueErrors
        raise TokenizerError(
            f"{where} is not a readable tokenizer.json: {error}", hint="download the file again"
        ) from error


def object_windows(path: Path) -> Iterator[dict[str, int]]:
    """The entries of a vocab.json (token -> id), some thousand at a time.

    Raises  TokenizerError when the file is no such object
    """
    raw = path.read_bytes()
    try:
        start = _skip_space(raw, 0)
        if raw[start : start + 1] != b"{":
            raise ValueError("expected an object")
        yield from _windows(raw, (start, _value_end(raw, start)))
    except (ValueError, IndexError, RecursionError) as error:
        raise TokenizerError(f"{path} is not a vocabulary: {error}", hint="download the file again") from error


def added_without(raw: bytes, contents: Collection[str]) -> bytes:
    """The bytes of a tokenizer.json that was read before, without these added tokens; all the rest as it is."""
    for key, start, end in _members(raw, 0):
        if key == "added_tokens":
            stay = [entry for entry in json.loads(raw[start:end]) if entry["content"] not in contents]
            return raw[:start] + json.dumps(stay).encode() + raw[end:]
    return raw


def index_of(tokens: Sequence[str | None]) -> dict[str, int]:
    """Token string -> id; of equal strings (Unigram allows them) the last id, as in the library."""
    return {token: index for index, token in enumerate(tokens) if token is not None}


def _assemble(raw: bytes, spans: Mapping[str, tuple[int, int]], skeleton: Json, where: str) -> Document:
    if not isinstance(skeleton, dict) or not isinstance(skeleton.get("model"), dict):
        raise TokenizerError(f"{where} has no `model`: it is not a tokenizer.json")
    json.dumps(skeleton, ensure_ascii=False).encode()  # refuses half of a surrogate pair, which is no text
    model = skeleton["model"]
    model_type = _model_type(model, raw, spans, where)
    refuse_unknown_keys(skeleton, _TOP_KEYS, where)
    refuse_unknown_keys(model, _MODEL_KEYS[model_type], f"{where}, model")
    check_form(skeleton, _TOP_FORM, where, TokenizerError, "download the file again")
    tokens: list[str | None]
    if "vocab" not in spans:
        raise TokenizerError(f"{where} has no model.vocab")
    scores: array[float] = array("d")
    if model_type == "Unigram":
        tokens = []
        for window in _windows(raw, spans["vocab"]):
            if not all(map(_is_piece, window)):
                check_form(
                    window, [FixedList(str, float)], f"{where}, model.vocab from {len(tokens):,}", TokenizerError
                )
            tokens.extend(entry[0] for entry in window)
            scores.extend(entry[1] for entry in window)
        "".join(token for token in tokens if token).encode()
        if not np.isfinite(scores).all():
            raise TokenizerError(f"{where}: the score of {tokens[int(np.argmin(np.isfinite(scores)))]!r} is no number")
        contents = {entry["content"] for entry in skeleton.get("added_tokens") or []}
        index = {token: old for old, token in enumerate(tokens) if token in contents and token is not None}
    else:
        index = {}
        for window in _windows(raw, spans["vocab"]):
            if not isinstance(window, dict) or set(map(type, window.values())) - {int}:
                check_form(window, {"*": int}, f"{where}, model.vocab", TokenizerError)
            index.update(window)
        "".join(index).encode()
        tokens = _by_id(index, where)
    in_model = bytearray(token is not None for token in tokens)
    merges = _read_merges(raw, spans.get("merges"), model, index, where) if model_type == "BPE" else None
    added = _place_added(skeleton.get("added_tokens") or [], index, tokens, len(scores) or len(index), where)
    in_model.extend(bytes(len(tokens) - len(in_model)))
    return Document(skeleton, model_type, tuple(tokens), bytes(in_model), added, scores, merges)


def _model_type(model: Mapping[str, Any], raw: bytes, spans: Mapping[str, tuple[int, int]], where: str) -> str:
    """The model's type; files written before 0.9 leave it out, and the library guesses from the fields as here."""
    named = model.get("type")
    if named is None:
        if "merges" in model:
            named = "BPE"
        elif "vocab" in spans and raw[spans["vocab"][0] : spans["vocab"][0] + 1] == b"[":
            named = "Unigram"
        elif "max_input_chars_per_word" in model:
            named = "WordPiece"
    if not isinstance(named, str) or named not in _MODEL_KEYS:
        raise TokenizerError(
            f"{where}: model type {named!r} is not understood; expected one of {', '.join(sorted(_MODEL_KEYS))}",
            hint=OPEN_AN_ISSUE,
        )
    return str(named)


def refuse_unknown_keys(found: Mapping[str, Any], known: set[str], where: str) -> None:
    """Stop at keys that nobody has read: one of them could hold ids."""
    unknown = sorted(set(found) - known)
    if unknown:
        raise TokenizerError(
            f"{where}: key {', '.join(map(repr, unknown))} is not understood and could hold token ids",
            hint=f"a newer tokenizers library may have written it; {OPEN_AN_ISSUE}",
        )


def _large_spans(raw: bytes) -> dict[str, tuple[int, int]]:
    """Byte ranges of model.vocab and model.merges, brackets included."""
    spans: dict[str, tuple[int, int]] = {}
    for key, start, _ in _members(raw, 0):
        if key == "model" and raw[start : start + 1] == b"{":
            for inner, inner_start, inner_end in _members(raw, start):
                if inner in ("vocab", "merges") and raw[inner_start : inner_start + 1] in (b"{", b"["):
                    spans[inner] = (inner_start, inner_end)
    return spans


def _members(raw: bytes, position: int) -> Iterator[tuple[str, int, int]]:
    """(key, start, end) of each member of the object that starts at or after `position`."""
    position = _skip_space(raw, position)
    if raw[position : position + 1] != b"{":
        raise ValueError("expected an object")
    position = _skip_space(raw, position + 1)
    while raw[position : position + 1] != b"}":
        key = _SCALAR.match(raw, position)
        if key is None:
            raise ValueError(f"expected a key at byte {position}")
        start = _skip_space(raw, key.end())
        end = _value_end(raw, start)
        yield json.loads(key.group()), start, end
        position = _skip_space(raw, end)


def _skip_space(raw: bytes, position: int) -> int:
    found = _SPACE.match(raw, position)
    return found.end() if found else position


def _value_end(raw: bytes, start: int) -> int:
    if raw[start : start + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(raw, start)
        if scalar is None:
            raise ValueError(f"expected a value at byte {start}")
        return scalar.end()
    depth, position = 1, start + 1
    while depth:
        while run := _RUN.match(raw, position):  # whole windows of plain entries; their brackets are balanced
            position = run.end()
        step = _TO_BRACKET.match(raw, position)
        if step is None or step.end() == position:
            raise ValueError("a bracket is never closed")
        position = step.end()
        if step.group(1):
            depth += 1 if step.group(1) in b"{[" else -1
    return position


def _without(raw: bytes, spans: Mapping[str, tuple[int, int]]) -> bytes:
    parts, position = [], 0
    for start, end in sorted(spans.values()):
        parts += [raw[position:start], b"null"]
        position = end
    return b"".join([*parts, raw[position:]])


def _windows(raw: bytes, span: tuple[int, int]) -> Iterator[Any]:
    """Decode a large array or object in windows of whole entries; each window is a list or a dict."""
    start, end = span
    opening, closing = raw[start : start + 1], raw[end - 1 : end]
    position = start + 1
    while run := _RUN.match(raw, position, end - 1):
        yield json.loads(opening + raw[position : run.end() - 1] + closing)
        position = run.end()
    last = _LAST.match(raw, position, end - 1)
    if last:
        yield json.loads(opening + last.group() + closing)
        position = last.end()
    if raw[position : end - 1].strip():
        raise ValueError(f"unexpected entry at byte {position}: {raw[position : position + 40]!r}")


def _is_piece(entry: Any) -> bool:
    """Whether an entry of a Unigram vocabulary is (token, score); many times faster than a form."""
    return type(entry) is list and len(entry) == 2 and type(entry[0]) is str and type(entry[1]) in (float, int)


def _is_merge(entry: Any) -> bool:
    if type(entry) is list:
        return len(entry) == 2 and type(entry[0]) is type(entry[1]) is str
    return type(entry) is str


def _by_id(index: Mapping[str, int], where: str) -> list[str | None]:
    last = max(index.items(), key=lambda item: item[1], default=("", -1))
    if last[1] > len(index) + _MOST_HOLES:
        raise TokenizerError(
            f"{where}: token {last[0]!r} has the id {last[1]:,} in a vocabulary of {len(index):,} tokens"
        )
    tokens: list[str | None] = [None] * (last[1] + 1)
    for token, token_id in index.items():
        if token_id < 0 or tokens[token_id] is not None:
            raise TokenizerError(f"{where}: tokens {tokens[token_id]!r} and {token!r} share the id {token_id}")
        tokens[token_id] = token
    return tokens


def _read_merges(
    raw: bytes, span: tuple[int, int] | None, model: Mapping[str, Any], index: Mapping[str, int], where: str
) -> Merges:
    if span is None:
        raise TokenizerError(f"{where}: a BPE model without model.merges")
    prefix = model.get("continuing_subword_prefix") or ""
    skip = len(prefix)
    left, right, product = array("i"), array("i"), array("i")
    for window in _windows(raw, span):
        if not all(map(_is_merge, window)):
            check_form(
                window, [(str, FixedList(str, str))], f"{where}, model.merges from {len(left):,}", TokenizerError
            )
        for entry in window:
            first, second = entry.split(" ") if isinstance(entry, str) else entry
            if skip and not second.startswith(prefix):  # the library panics on some of these (tokenizers 0.23)
                raise TokenizerError(f"{where}: merge {first!r} + {second!r} lacks the model's prefix {prefix!r}")
            try:
                left.append(index[first])
                right.append(index[second])
                product.append(index[first + second[skip:]])
            except KeyError as error:
                raise TokenizerError(
                    f"{where}: merge {first!r} + {second!r} needs {error}, not in model.vocab"
                ) from None
    return unique_merges(left, right, product)


def unique_merges(left: Sequence[int], right: Sequence[int], product: Sequence[int]) -> Merges:
    """Order merges by rank, each pair once: the later of two equal pairs wins in the library."""
    columns = [np.asarray(column, dtype=np.int32) for column in (left, right, product)]
    size = int(max((column.max() for column in columns if len(column)), default=0)) + 1
    keys = columns[0].astype(np.int64) * size + columns[1]
    _, first_from_the_end = np.unique(keys[::-1], return_index=True)
    rows = np.sort(len(keys) - 1 - first_from_the_end)
    return Merges(*(column[rows] for column in columns))


def _place_added(
    entries: Sequence[Mapping[str, Any]],
    index: Mapping[str, int],
    tokens: list[str | None],
    vocab_size: int,
    where: str,
) -> dict[str, Mapping[str, Any]]:
    """Give each added token the id that the library gives it, and put it into `tokens`.

    The library ignores `id` for a token that model.vocab lacks: such tokens follow model.vocab one by one. A file that
    counts on another id means a different token than every loader sees, so it is refused.
    """
    placed: dict[str, Mapping[str, Any]] = {}
    following = vocab_size
    for entry in entries:
        refuse_unknown_keys(entry, _ADDED_KEYS, f"{where}, added_tokens")
        content = entry["content"]
        if content in placed:
            continue
        token_id = index.get(content, following)
        following += content not in index
        if entry["id"] != token_id:
            raise TokenizerError(
                f"{where}: added token {content!r} says id {entry['id']}, but every loader gives it {token_id}",
                hint="ids of added tokens must follow the vocabulary without holes; save it again with transformers",
            )
        tokens.extend([None] * (token_id + 1 - len(tokens)))
        if tokens[token_id] not in (None, content):
            raise TokenizerError(f"{where}: {tokens[token_id]!r} and {content!r} share the id {token_id}")
        tokens[token_id] = content
        placed[content] = {**entry, "id": token_id}
    return dict(sorted(placed.items(), key=lambda item: int(item[1]["id"])))
