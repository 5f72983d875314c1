"""Small tokenizers on disk, one for every kind, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langslice.tokenizer.surface import byte_alphabet


def added(token_id: int, content: str, **flags: bool) -> dict[str, Any]:
    """An added_tokens entry."""
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **base, **flags}


def write_tokenizer_json(folder: Path, model: Mapping[str, Any], **parts: Any) -> Path:
    """Write a tokenizer.json with the given model and top-level parts; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    top = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    top |= {"pre_tokenizer": None, "post_processor": None, "decoder": None, **parts, "model": dict(model)}
    (folder / "tokenizer.json").write_text(json.dumps(top, ensure_ascii=False), encoding="utf-8")
    return folder


def bpe(tokens: Sequence[str], merges: Sequence[Sequence[str]], **fields: Any) -> dict[str, Any]:
    """A BPE model whose ids are positions."""
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {**model, **fields, "vocab": {token: old for old, token in enumerate(tokens)}, "merges": list(merges)}


def byte_level_folder(folder: Path, merges: Sequence[tuple[str, str]], extra: Sequence[str] = (), **parts: Any) -> Path:
    """A byte-level BPE: 256 bytes, the products of `merges`, then `extra`."""
    tokens = [*sorted(byte_alphabet()), *dict.fromkeys(left + right for left, right in merges), *extra]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    fields = {"pre_tokenizer": level, "decoder": level, **parts}
    return write_tokenizer_json(folder, bpe(tokens, [list(pair) for pair in merges]), **fields)


def unigram(pieces: Sequence[tuple[str, float]], unk_id: int | None = 0, **fields: Any) -> dict[str, Any]:
    """A Unigram model."""
    return {"type": "Unigram", "unk_id": unk_id, "vocab": [list(piece) for piece in pieces], **fields}


def wordpiece(tokens: Sequence[str]) -> dict[str, Any]:
    """A WordPiece model whose ids are positions."""
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return {**model, "max_input_chars_per_word": 100, "vocab": {token: old for old, token in enumerate(tokens)}}
