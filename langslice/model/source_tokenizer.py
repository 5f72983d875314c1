"""The source of a slice: its tokenizer, and the fingerprint that ties a plan to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from langslice.errors import NoTokenizerError
from langslice.files.hashing import file_sha256
from langslice.model.axes import find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.draft_head import is_draft
from langslice.model.families import family_of

if TYPE_CHECKING:
    from langslice.tokenizer import SourceTokenizer

_OF_DRAFTS = "a draft model reads its target's tokenizer: its rows are named by number alone"


def source_tokenizer(checkpoint: Checkpoint, *, rows: int | None = None, needed: bool = True) -> SourceTokenizer:
    """The tokenizer next to a checkpoint, read.

    rows    of the vocabulary, where they are known
    needed  False for a job that leaves all tokens as they are: a folder without a tokenizer then gives an absent one
    """
    from langslice.tokenizer import open_tokenizer
    from langslice.tokenizer.absent import absent_tokenizer

    if is_draft(checkpoint.config):
        return replace(absent_tokenizer(checkpoint.model_folder), files=(), notes=(_OF_DRAFTS,))
    model_type = checkpoint.config.get("model_type") if checkpoint.config_file else None
    rows = vocabulary_rows(checkpoint) if rows is None else rows
    try:
        return open_tokenizer(checkpoint.model_folder, model_type=model_type, rows=rows, merges=needed)
    except NoTokenizerError:
        if needed:
            raise
        return absent_tokenizer(checkpoint.model_folder)


def vocabulary_rows(checkpoint: Checkpoint) -> int:
    """Rows of its vocabulary's tensors; for a tokenizer alone, its tokens."""
    if checkpoint.vocabulary is not None:
        return checkpoint.vocabulary
    return find_vocabulary_size(family_of(checkpoint.config), checkpoint.shapes)


def fingerprint_of(checkpoint: Checkpoint, tokenizer: SourceTokenizer) -> str:
    """What a plan for this checkpoint and tokenizer is tied to."""
    return fingerprint(checkpoint, [tokenizer.folder / name for name in tokenizer.files])


def fingerprint(checkpoint: Checkpoint, tokenizer_files: Sequence[Path]) -> str:
    """Tie a plan to its source: config, every tensor's name, dtype and shape, and the tokenizer files."""
    digest = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tensor.shape}\n".encode())
    for path in sorted(tokenizer_files):
        digest.update(f"{path.name}\0".encode() + bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()
