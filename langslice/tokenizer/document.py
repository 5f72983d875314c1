"""Read a tokenizer.json without holding its Python twin in memory.

Two parts of the file are large: `model.vocab` and `model.merges`. They are found by a scan of the raw bytes and
decoded in windows of a few thousand entries, straight into tuples and arrays; everything else (the skeleton) is plain
`json.loads`. Reading Gemma's half a million merges this way needs 6 MB for them instead of 90.

This module knows the layout of the file, not what a slice does with it: see rewrite.py.
Source: the serialisation of the `tokenizers` library (Model, AddedVocabulary), tried on versions 0.21 to 0.23.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import OPEN_AN_ISSUE, TokenizerError
from langslice.files.json_forms import FixedList, check_form
from langslice.tokenizer.json_windows import Span, Structure

Json = Any
"""What `json.loads` returns."""

_MOST_HOLES = 1 << 20  # ids without a token; more would be a damaged number, and a list that fills the memory

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
    load_merges  makes `merges`
    """

    skeleton: Mapping[str, Any]
    model_type: str
    tokens: tuple[str | None, ...]
    in_model: bytes
    added: Mapping[str, Mapping[str, Any]]
    scores: array[float]
    load_merges: Callable[[], Merges | None]

    @cached_property
    def merges(self) -> Merges | None:
        """Merges of BPE, else None; half of the work of reading a large vocabulary, so that whoever needs none can do without."""
        return self.load_merges()


def read_document(path: Path, *, merges: bool = True) -> Document:
    """Read a tokenizer.json.

    merges  False: only when they are asked for, in a second reading
    Raises  TokenizerError when it is not JSON, or holds a model, key or id that is not understood
    """
    later = None if merges else partial(_merges_of, path)
    return parse_document(path.read_bytes(), str(path), later)


def _merges_of(path: Path) -> Merges | None:
    return read_document(path).merges


def parse_document(raw: bytes, where: str, later: Callable[[], Merges | None] | None = None) -> Document:
    """Read the bytes of a tokenizer.json; `where` names them in errors. See `read_document`.

    later  reads the merges when they are asked for; without it they are read now
    """
    try:
        text = Structure(raw)
        spans = _large_spans(text)
        skeleton = json.loads(_without(raw, spans))
        return _assemble(text, spans, skeleton, where, later)
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
    try:
        text = Structure(path.read_bytes())
        start, end = text.whole
        if text.raw[:start].strip() or text.raw[start : start + 1] != b"{" or text.raw[end:].strip():
            raise ValueError("expected an object")
        yield from text.windows(text.whole)
    except (ValueError, IndexError, RecursionError) as error:
        raise TokenizerError(f"{path} is not a vocabulary: {error}", hint="download the file again") from error


def added_without(raw: bytes, contents: Collection[str]) -> bytes:
    """The bytes of a tokenizer.json that was read before, without these added tokens; all the rest as it is."""
    text = Structure(raw)
    for key, (start, end) in text.members(text.whole):
        if key == "added_tokens":
            stay = [entry for entry in json.loads(raw[start:end]) if entry["content"] not in contents]
            return raw[:start] + json.dumps(stay).encode() + raw[end:]
    return raw


def index_of(tokens: Sequence[str | None]) -> dict[str, int]:
    """Token string -> id; of equal strings (Unigram allows them) the last id, as in the library."""
    return {token: index for index, token in enumerate(tokens) if token is not None}


def _assemble(
    text: Structure,
    spans: Mapping[str, Span],
    skeleton: Json,
    where: str,
    later: Callable[[], Merges | None] | None,
) -> Document:
    if not isinstance(skeleton, dict) or not isinstance(skeleton.get("model"), dict):
        raise TokenizerError(f"{where} has no `model`: it is not a tokenizer.json")
    json.dumps(skeleton, ensure_ascii=False).encode()  # refuses half of a surrogate pair, which is no text
    model = skeleton["model"]
    model_type = _model_type(model, text.raw, spans, where)
    refuse_unknown_keys(skeleton, _TOP_KEYS, where)
    refuse_unknown_keys(model, _MODEL_KEYS[model_type], f"{where}, model")
    check_form(skeleton, _TOP_FORM, where, TokenizerError, "download the file again")
    tokens: list[str | None]
    if "vocab" not in spans:
        raise TokenizerError(f"{where} has no model.vocab")
    scores: array[float] = array("d")
    if model_type == "Unigram":
        tokens = []
        for window in text.windows(spans["vocab"]):
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
        for window in text.windows(spans["vocab"]):
            if not isinstance(window, dict) or set(map(type, window.values())) - {int}:
                check_form(window, {"*": int}, f"{where}, model.vocab", TokenizerError)
            index.update(window)
        "".join(index).encode()
        tokens = _by_id(index, where)
    in_model = bytearray(token is not None for token in tokens)
    if later is None:
        merges = _read_merges(text, spans.get("merges"), model, index, where) if model_type == "BPE" else None
        later = partial(_same, merges)
    added = _place_added(skeleton.get("added_tokens") or [], index, tokens, len(scores) or len(index), where)
    in_model.extend(bytes(len(tokens) - len(in_model)))
    return Document(skeleton, model_type, tuple(tokens), bytes(in_model), added, scores, later)


def _same(merges: Merges | None) -> Merges | None:
    return merges


def _model_type(model: Mapping[str, Any], raw: bytes, spans: Mapping[str, Span], where: str) -> str:
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


def _large_spans(text: Structure) -> dict[str, Span]:
    """Byte ranges of model.vocab and model.merges, brackets included."""
    for key, span in text.members(text.whole):
        if key == "model":
            return {inner: place for inner, place in text.members(span) if inner in ("vocab", "merges")}
    return {}


def _without(raw: bytes, spans: Mapping[str, Span]) -> bytes:
    parts, position = [], 0
    for start, end in sorted(spans.values()):
        parts += [raw[position:start], b"null"]
        position = end
    return b"".join([*parts, raw[position:]])


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
    text: Structure, span: Span | None, model: Mapping[str, Any], index: Mapping[str, int], where: str
) -> Merges:
    if span is None:
        raise TokenizerError(f"{where}: a BPE model without model.merges")
    prefix = model.get("continuing_subword_prefix") or ""
    skip = len(prefix)
    left, right, product = array("i"), array("i"), array("i")
    for window in text.windows(span):
        if not all(map(_is_merge, window)):
            check_form(
                window, [(str, FixedList(str, str))], f"{where}, model.merges from {len(left):,}", TokenizerError
            )
        pairs = [entry.split(" ") if isinstance(entry, str) else entry for entry in window]
        if set(map(len, pairs)) != {2}:
            raise ValueError("a merge is not of two tokens")
        if skip:
            _check_prefix(pairs, prefix, where)
        spelled = [first + second[skip:] for first, second in pairs]
        try:
            left.extend([index[first] for first, _ in pairs])
            right.extend([index[second] for _, second in pairs])
            product.extend([index[token] for token in spelled])
        except KeyError as error:
            first, second = next(
                pair for pair, token in zip(pairs, spelled, strict=True) if not index.keys() >= {*pair, token}
            )
            raise TokenizerError(f"{where}: merge {first!r} + {second!r} needs {error}, not in model.vocab") from None
    return unique_merges(left, right, product)


def _check_prefix(pairs: Sequence[Sequence[str]], prefix: str, where: str) -> None:
    """Refuse merges whose second part lacks the prefix: the library panics on some of these (tokenizers 0.23)."""
    for first, second in pairs:
        if not second.startswith(prefix):
            raise TokenizerError(f"{where}: merge {first!r} + {second!r} lacks the model's prefix {prefix!r}")


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
