"""Tokenizers as files: what a token stands for, which others it needs, and how to write a smaller one."""

from __future__ import annotations

from langslice.tokenizer.source import Closure, Rewrite, SourceTokenizer
from langslice.tokenizer.steps import (
    check_renumbering,
    check_tokenizer,
    close,
    copy_tokenizer,
    missing_closure,
    open_tokenizer,
    write_tokenizer,
)

__all__ = [
    "Closure",
    "Rewrite",
    "SourceTokenizer",
    "check_renumbering",
    "check_tokenizer",
    "close",
    "copy_tokenizer",
    "missing_closure",
    "open_tokenizer",
    "write_tokenizer",
]
