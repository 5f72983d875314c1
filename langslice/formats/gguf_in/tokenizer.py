"""The tokenizer of a GGUF file as the files that langslice reads tokenizers from, so that tokens are chosen as of any model.

Source of what llama.cpp does with each kind: llama.cpp 0.5.0, src/llama-vocab.cpp.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError, TokenizerError
from langslice.formats.gguf_in.container import INTEGERS, GgufSource
from langslice.formats.gguf_vocabulary import MODELS

CONTROL, USER_DEFINED, UNUSED, BYTE, NORMAL, UNKNOWN = 3, 4, 5, 6, 1, 2
_SPACE = "▁"
_KINDS = {model: kind for kind, model in MODELS.items()}
_HINT = "slice the model that the file was made from, and `langslice export` the slice"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp's name of a pre-tokenizer -> where text is split; None for that of GPT-2, which the library has built in.
_SPLITS: dict[str, str | None] = {
    "gpt-2": None,
    "llama-bpe": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+{_REST}",
    "qwen2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+{_REST}",
    "qwen35": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+{_REST}",
}
# Pre-tokenizers whose words that are tokens are taken whole, whatever the merges say.
_WHOLE_WORDS = frozenset({"llama-bpe"})
# What converters put where a model has more rows than its tokenizer has tokens.
_FILLER = re.compile(r"\[PAD\d+\]")
PREFIX = "tokenizer.ggml."
ID_END = "_token_id"


@dataclass(frozen=True)
class _Tokens:
    """Tokens of a file, spelled as tokenizer.json spells them, without rows at the end that are no token's."""

    source: GgufSource
    kind: str
    texts: Sequence[str]
    types: Sequence[int]
    unknown: int | None

    def setting(self, name: str, default: Any) -> Any:
        return self.source.value(PREFIX + name, default)


def write_tokenizer_files(source: GgufSource, folder: Path) -> None:
    """Write tokenizer.json, its settings with the chat template, and the ids of the metadata, into an empty folder.

    Raises  CheckpointError, TokenizerError for a tokenizer that is not understood
    """
    tokens = _read(source)
    steps = {"spm-bpe": _spm, "byte-bpe": _byte_level, "wordpiece": _wordpiece, "unigram": _unigram}[tokens.kind](
        tokens
    )
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {
                "id": token_id, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": kind == CONTROL,
            }
            for token_id, (text, kind) in enumerate(zip(tokens.texts, tokens.types, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None, **steps,
    }  # fmt: skip
    _write(folder / "tokenizer.json", document)
    templates = [key for key in source.entries if key == "tokenizer.chat_template"]
    _write(folder / "tokenizer_config.json", {"chat_template": source.value(templates[0])} if templates else {})
    _write(folder / "config.json", named_ids(source, len(tokens.texts)))


def named_ids(source: GgufSource, size: int) -> dict[str, int | list[int]]:
    """Name -> id, or ids, of every token that the metadata names; without what is no token's."""
    found: dict[str, int | list[int]] = {}
    for key, entry in source.entries.items():
        if key.startswith(PREFIX) and key.endswith((ID_END, f"{ID_END}s")) and entry.kind in INTEGERS:
            value = source.value(key)
            ids = [old for old in (value if isinstance(value, list) else [value]) if 0 <= old < size]
            if ids:
                found[key.removeprefix(PREFIX)] = ids if isinstance(value, list) else ids[0]
    return found


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _read(source: GgufSource) -> _Tokens:
    model = source.value(f"{PREFIX}model")
    kind = _KINDS.get(str(model))
    if kind is None:
        raise CheckpointError(f"{source.path}: a tokenizer of the kind {model} is not understood", _HINT)
    texts = source.value(f"{PREFIX}tokens")
    types = source.value(f"{PREFIX}token_type", [NORMAL] * len(texts))
    if len(types) != len(texts):
        raise CheckpointError(f"{source.path}: {len(texts):,} tokens, and types of {len(types):,}")
    while types and types[-1] == UNUSED and _FILLER.fullmatch(texts[-1]):
        texts.pop()
        types.pop()
    unknown = source.value(f"{PREFIX}unknown_token_id")
    if unknown is None or unknown >= len(texts):
        unknown = types.index(UNKNOWN) if UNKNOWN in types else None
    spelled = [_spelled(kind, text, number) for text, number in zip(texts, types, strict=True)]
    if kind != "unigram" and len(set(spelled)) < len(spelled):
        seen: set[str] = set()
        twice = next(text for text in spelled if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise TokenizerError(f"{source.path}: two tokens are spelled {twice!r}", _HINT)
    return _Tokens(source, kind, spelled, types, unknown)


def _spelled(kind: str, text: str, number: int) -> str:
    if kind == "wordpiece" and number == NORMAL:
        return text[1:] if text.startswith(_SPACE) and text != _SPACE else f"##{text}"
    return text.replace(" ", _SPACE) if kind in ("spm-bpe", "unigram") and number == USER_DEFINED else text


def _vocabulary(tokens: _Tokens) -> dict[str, int]:
    return {text: token_id for token_id, text in enumerate(tokens.texts)}


def _unknown_text(tokens: _Tokens) -> str | None:
    return None if tokens.unknown is None else tokens.texts[tokens.unknown]


def _bpe(tokens: _Tokens, merges: Sequence[Sequence[str]], **more: Any) -> dict[str, Any]:
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": _vocabulary(tokens), "merges": merges,
        **more,
    }  # fmt: skip


def _spm(tokens: _Tokens) -> dict[str, Any]:
    """SentencePiece's BPE: any two neighbours join whose text is a token, the one of the highest score first."""
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    if tokens.setting("add_space_prefix", True):
        steps.insert(0, {"type": "Prepend", "prepend": _SPACE})
    model = _bpe(tokens, _score_merges(tokens), unk_token=_unknown_text(tokens), fuse_unk=True, byte_fallback=True)
    decoders = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def _score_merges(tokens: _Tokens) -> list[tuple[str, str]]:
    """Every pair of tokens whose text is a token, highest score of the product first."""
    scores = tokens.setting("scores", [])[: len(tokens.texts)]
    if len(scores) < len(tokens.texts):
        raise TokenizerError(f"{tokens.source.path}: a SentencePiece tokenizer without a score for each token", _HINT)
    joins = {
        text for text, kind in zip(tokens.texts, tokens.types, strict=True) if kind in (NORMAL, USER_DEFINED, UNUSED)
    }
    found = [
        (-score, token_id, text[:at], text[at:])
        for token_id, (text, score) in enumerate(zip(tokens.texts, scores, strict=True))
        if text in joins
        for at in range(1, len(text))
        if text[:at] in joins and text[at:] in joins
    ]
    found.sort()
    return [(left, right) for _, _, left, right in found]


def _byte_level(tokens: _Tokens) -> dict[str, Any]:
    pre = str(tokens.setting("pre", "default"))
    if pre not in _SPLITS:
        raise CheckpointError(
            f"{tokens.source.path}: the pre-tokenizer {pre} is not understood\n  understood are {', '.join(_SPLITS)}",
            _HINT,
        )
    merges = [_parted(merge) for merge in tokens.setting("merges", [])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": _SPLITS[pre] is None}
    split = {"type": "Split", "pattern": {"Regex": _SPLITS[pre]}, "behavior": "Isolated", "invert": False}
    parts = [level] if _SPLITS[pre] is None else [split, level]
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(tokens, merges, ignore_merges=pre in _WHOLE_WORDS),
    }


def _parted(merge: str) -> tuple[str, str]:
    """The two sides of a merge: a space parts them, but for one at the beginning."""
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _wordpiece(tokens: _Tokens) -> dict[str, Any]:
    lower = tokens.setting("normalizer.lowercase", True)
    unknown = _unknown_text(tokens)
    if unknown is None:
        raise TokenizerError(f"{tokens.source.path}: a WordPiece tokenizer without an unknown token", _HINT)
    return {
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": lower,
            "strip_accents": tokens.setting("normalizer.strip_accents", lower),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": _vocabulary(tokens),
        },
    }  # fmt: skip


def _unigram(tokens: _Tokens) -> dict[str, Any]:
    scores = tokens.setting("scores", [])[: len(tokens.texts)]
    if len(scores) < len(tokens.texts) or tokens.unknown is None:
        raise TokenizerError(f"{tokens.source.path}: a Unigram tokenizer without scores or an unknown token", _HINT)
    charsmap = tokens.setting("precompiled_charsmap", None)
    encoded = None if charsmap is None else base64.b64encode(bytes(value & 0xFF for value in charsmap)).decode()
    prefix = "always" if tokens.setting("add_space_prefix", True) else "never"
    steps: list[Mapping[str, Any]] = (
        [{"type": "WhitespaceSplit"}] if tokens.setting("remove_extra_whitespaces", True) else []
    )
    marker = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": prefix, "split": bool(steps)}
    return {
        "normalizer": None if encoded is None else {"type": "Precompiled", "precompiled_charsmap": encoded},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, marker]},
        "decoder": marker,
        "model": {
            "type": "Unigram", "unk_id": tokens.unknown, "byte_fallback": False,
            "vocab": [list(entry) for entry in zip(tokens.texts, scores, strict=True)],
        },
    }  # fmt: skip
