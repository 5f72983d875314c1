"""The mark at the end of a model card that langslice wrote: a hash of the text above it, by which edits are seen."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_MARK = re.compile(r"<!-- langslice-card sha256:([0-9a-f]{64}) -->\s*\Z")


def marked(text: str) -> str:
    """A card's text with the mark."""
    return f"{text}<!-- langslice-card sha256:{_digest(text)} -->\n"


def text_above_mark(text: str) -> str | None:
    """The text that the mark was made of; None where there is no mark."""
    found = _MARK.search(text)
    return None if found is None else text[: found.start()]


def written_by_langslice(path: Path) -> bool:
    """Whether a card was written by langslice, edited since or not."""
    return text_above_mark(path.read_text(encoding="utf-8", errors="replace")) is not None


def card_edited(path: Path) -> bool:
    """Whether a card is not as langslice wrote it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = _MARK.search(text)
    return found is None or found[1] != _digest(text[: found.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
