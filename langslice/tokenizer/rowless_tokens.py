"""Tokens that a tokenizer declares and its model has no row for: left out, as the model could never read them.

Published example: Gemma 3's text models share the tokenizer of the multimodal ones, whose `<image_soft_token>` has the id
just after the last row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langslice.tokenizer.document import Document, added_without

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokens_beyond(document: Document, rows: int | None) -> tuple[str, ...]:
    """Added tokens without a row, when only added tokens have none; a vocabulary that is too large is another matter."""
    if rows is None or len(document.tokens) <= rows or any(document.in_model[rows:]):
        return ()
    return tuple(token for token in document.tokens[rows:] if token is not None)


def document_without(document: Document, contents: Collection[str], rows: int) -> Document:
    """The document up to its last row, without these added tokens."""
    added = {content: entry for content, entry in document.added.items() if content not in contents}
    return replace(document, tokens=document.tokens[:rows], in_model=document.in_model[:rows], added=added)


def settings_without(settings: Mapping[str, Mapping[str, Any]], contents: Collection[str]) -> dict[str, dict[str, Any]]:
    """Every settings file without the entries that name these tokens."""
    return {name: _without(content, contents) for name, content in settings.items()}


def backend_without(backend: Tokenizer, contents: Collection[str]) -> Tokenizer:
    """The tokenizer itself, without these added tokens, so that their text is read as any other."""
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer(added_without(backend.to_str().encode(), contents)) if contents else backend


def _without(value: Any, contents: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_without(item, contents) for item in value if not _names(item, contents)]
    if isinstance(value, Mapping):
        return {
            key: _without(item, contents)
            for key, item in value.items()
            # added_tokens.json names tokens by its keys.
            if not _names(item, contents) and not (key in contents and isinstance(item, int))
        }
    return value


def _names(value: Any, contents: Collection[str]) -> bool:
    """Whether an entry is one of these tokens, as text or as an object with `content`."""
    if isinstance(value, str):
        return value in contents
    return isinstance(value, Mapping) and value.get("content") in contents
