"""The source's model card: where it is next to a slice's own, and what its metadata says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from langslice.reporting.card_mark import written_by_langslice

CARD = "README.md"
ASIDE = "SOURCE_README.md"
_FRONT = re.compile(r"\A\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_NUMBERED = re.compile(r"SOURCE_README(?:-(\d+))?\.md")


def set_source_card_aside(folder: Path) -> None:
    """Give the source's card, copied into a slice, a name of its own: it does not describe the slice.

    A slice of a slice has several: the first source's stays SOURCE_README.md, the next becomes SOURCE_README-2.md.
    """
    card = folder / CARD
    if card.is_file():
        taken = [number for number, _ in _aside(folder)]
        card.rename(folder / (ASIDE if not taken else f"SOURCE_README-{max(taken) + 1}.md"))


def source_card(folder: Path) -> Path | None:
    """The card of the model that a slice was made from, None where it had none.

    In slices made before cards were set aside it is README.md itself, unless that was written by langslice.
    """
    aside = _aside(folder)
    if aside:
        return aside[-1][1]
    own = folder / CARD
    return own if own.is_file() and not written_by_langslice(own) else None


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card; no metadata where there is none or it is not YAML."""
    import yaml

    text = path.read_text(encoding="utf-8", errors="replace")
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError:
        metadata = None
    return (metadata if isinstance(metadata, dict) else {}), text[found.end() :]


def _aside(folder: Path) -> list[tuple[int, Path]]:
    """Cards of sources next to a slice, with their numbers, the direct source's last."""
    found = []
    for path in folder.glob("SOURCE_README*.md"):
        matched = _NUMBERED.fullmatch(path.name)
        if matched:
            found.append((int(matched[1] or 1), path))
    return sorted(found)
