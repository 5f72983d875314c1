"""What a run's result depends on, as one digest: the recipe, the version, and the content of every file that it names."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from langslice import __version__
from langslice.slice_plan import file_sha256

_SHA256 = re.compile(r"[0-9a-f]{64}")
# The digest stands in folder names.
_LENGTH = 24


def digest(document: Mapping[str, Any]) -> str:
    """24 hexadecimal digits of a recipe, or of a part of one, together with the files that it names."""
    files = {text: content_of(text) for text in sorted(set(_texts(document))) if _is_path(text)}
    text = json.dumps([__version__, document, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


@lru_cache(maxsize=256)
def content_of(path: str) -> str:
    """Digest of a file, or of a folder's files with their names; read once in a process."""
    from langslice.mini import mini_model_path

    root = mini_model_path() if path == "mini" and not Path("mini").exists() else Path(path).expanduser()
    if root.is_file():
        return _of_file(root)
    found = hashlib.sha256()
    # A data folder may be made of links.
    files = sorted(Path(place) / name for place, _, names in os.walk(root, followlinks=True) for name in names)
    for file in files:
        found.update(f"{file.relative_to(root)}\0{_of_file(file)}\n".encode())
    return found.hexdigest()


def _of_file(path: Path) -> str:
    # The hub's cache names large files by the sha256 of their content.
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else file_sha256(path)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    # Several files may stand in one text, with commas.
    return [value, *value.split(",")] if isinstance(value, str) else []


def _is_path(text: str) -> bool:
    if text == "mini":
        return True
    try:
        return bool(text.strip()) and Path(text).expanduser().exists()
    except (OSError, ValueError):
        return False
