"""llama.cpp's name of a byte-level pre-tokenizer, found by a hash as its converter finds it.

The converter encodes a fixed text and hashes the list of token ids. A slice has other ids, so the hash is the source's: taken
when slicing, recorded in slice.json, and looked up when a slice is exported.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from langslice.errors import ExportError, LangsliceError
from langslice.files.json_forms import read_json
from langslice.files.user_cache import cached
from langslice.mini import mini_model_path
from langslice.model.checkpoint import open_checkpoint
from langslice.model.source_tokenizer import source_tokenizer
from langslice.tokenizer import SourceTokenizer
from langslice.verification.file_names import FILE_NAME

# Kinds of tokenizers that the converter tells apart by the hash; the others need no name.
HASHED = ("byte-bpe", "wordpiece")
RECORDED = "pre_tokenizer_hash"


@lru_cache(maxsize=1)
def known_pre_tokenizers() -> dict[str, Any]:
    """What llama.cpp knows: the text, hash -> name, and where and when this was read."""
    return dict(json.loads((Path(__file__).parent / "pre_tokenizers.json").read_text(encoding="utf-8")))


def hash_of(tokenizer: SourceTokenizer) -> str | None:
    """sha256 of the token ids of the fixed text, special tokens around it; None for a tokenizer that needs no name."""
    if tokenizer.kind not in HASHED:
        return None
    text = known_pre_tokenizers()["text"]

    def digest() -> bytes:
        backend = tokenizer.backend
        return b"" if backend is None else hashlib.sha256(str(backend.encode(text).ids).encode()).hexdigest().encode()

    key = tokenizer.content_key
    found = digest() if key is None else cached("pre-tokenizers", [key, version("tokenizers"), text], digest)
    return found.decode() or None


def original_hash(folder: Path, tokenizer: SourceTokenizer) -> str | None:
    """The hash of the tokenizer that a model began with: what slice.json says, or else what its source says.

    tokenizer  that of `folder`; where the folder is no slice it is asked itself
    Returns    None where no name is needed, and where a slice does not say and its source is not at hand
    """
    if tokenizer.kind not in HASHED:
        return None
    document = _record(folder)
    if document is None:
        return hash_of(tokenizer)
    if isinstance(document.get(RECORDED), str):
        return str(document[RECORDED])
    named = (document.get("source") or {}).get("model")
    source = mini_model_path() if named == "mini" else Path(str(named))
    if not source.is_dir() or source.resolve() == folder.resolve():
        return None
    try:
        earlier = open_checkpoint(source)
        return original_hash(source, source_tokenizer(earlier))
    except LangsliceError:
        return None


def _record(folder: Path) -> dict[str, Any] | None:
    """slice.json; None where there is none."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        document = read_json(path, ExportError, halves=True)
    except ExportError:
        document = {}
    return document if isinstance(document, dict) else {}
