"""Tokenizers as files: what a token stands for, which others it needs, and how to write a smaller one."""

from __future__ import annotations

from langslice.tokenizer.source import Closure as Closure
from langslice.tokenizer.source import Rewrite as Rewrite
from langslice.tokenizer.source import SourceTokenizer
from langslice.tokenizer.steps import check_renumbering as check_renumbering
from langslice.tokenizer.steps import check_tokenizer as check_tokenizer
from langslice.tokenizer.steps import close, open_tokenizer, write_tokenizer
from langslice.tokenizer.steps import copy_tokenizer as copy_tokenizer
from langslice.tokenizer.steps import missing_closure as missing_closure

__all__ = ["SourceTokenizer", "close", "open_tokenizer", "write_tokenizer"]
