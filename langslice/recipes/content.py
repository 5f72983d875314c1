"""What a result depends on, as one digest: a part of a recipe, the version, and the content of every file that it names."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

from langslice.errors import RecipeError
from langslice.files.hashing import file_sha256
from langslice.version import __version__

_SHA256 = re.compile(r"[0-9a-f]{64}")
# The digest is in folder names.
_LENGTH = 24
# Of Linux, in bytes; glob takes the square of a pattern's length.
_LONGEST_PATH = 4096

# Entries whose text is never a file, though it may be called like one: codes, patterns over names, and what is laid between
# sentences. A teacher's guesses are made by the step itself.
_NO_FILES = frozenset({
    "carry", "condition", "device", "dtype", "extend_to", "fields", "ignore_field", "keep_text", "languages", "leave_out",
    "linears", "lora_targets", "max_size", "names", "pattern", "prune_rows", "scripts", "drop_scripts", "separator",
    "teacher_cache", "template", "text_field", "train",
})  # fmt: skip

Read = Callable[[str], str]


def digest(document: Mapping[str, Any], *, read: Read | None = None) -> str:
    """24 hexadecimal digits of a recipe, or of a part of one, together with the files that it names.

    read  gives the digest of a file or folder; `content_of` unless given
    """
    read = read or content_of
    files = {path: read(path) for path in sorted({path for text in _texts(document) for path in _paths(text)})}
    text = json.dumps([__version__, document, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


@lru_cache(maxsize=256)
def content_of(path: str) -> str:
    """Digest of a file, or of a folder's files with their names; read once in a process."""
    return _content(path, _of_file)


def remembering(store: Path | None) -> Read:
    """A way to read digests that keeps those of files between processes, by size, time of change and inode.

    store  JSON file to keep them in; made anew where it is not readable; None keeps them in this process only
    """
    known: dict[str, list[Any]] = {}
    try:
        known = {} if store is None else json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}

    def of_file(path: Path) -> str:
        state, name = path.stat(), str(path.resolve())
        mark = [state.st_size, state.st_mtime_ns, state.st_ino]
        if name not in known or known[name][:3] != mark:
            known[name] = [*mark, _of_file(path)]
            if store is not None:
                partial = store.with_name(f"{store.name}.partial")
                partial.write_text(json.dumps(known), encoding="utf-8")
                partial.replace(store)
        return str(known[name][3])

    return lambda path: _content(path, of_file)


def _content(path: str, of_file: Callable[[Path], str]) -> str:
    from langslice.mini import mini_model_path

    root = mini_model_path() if path == "mini" and not Path("mini").exists() else Path(path).expanduser()
    if root.is_file():
        return of_file(root)
    if root.resolve() == Path(root.resolve().anchor):
        raise RecipeError(f"{path} is the whole file system", "name the folder that is meant")
    found = hashlib.sha256()
    # A data folder may be made of links.
    files = sorted(Path(place) / name for place, _, names in os.walk(root, followlinks=True) for name in names)
    for file in files:
        if not file.is_file():  # a pipe or a device never ends, a broken link has nothing
            continue
        found.update(f"{file.relative_to(root)}\0{of_file(file)}\n".encode())
    return found.hexdigest()


def _of_file(path: Path) -> str:
    # The hub's cache names large files by the sha256 of their content.
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else file_sha256(path)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in _NO_FILES or isinstance(item, dict):
                yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str | Path):
        yield str(value)


def _paths(text: str) -> Iterator[str]:
    """What a text names: a file or folder, several with commas, CODE=PATH, FILE=WEIGHT, FILE:COUNT, or a glob."""
    whole = [text, *text.split(",")]
    whole += [item.partition("=")[2] for item in whole]
    parts = [piece for item in whole for sign in "=:" for piece in (item.partition(sign)[0], item.rpartition(sign)[0])]
    for path in (*whole, *parts):
        if _exists(path) and (path in whole or not Path(path).expanduser().is_dir()):
            yield path
    for pattern in whole:
        if any(sign in pattern for sign in "*?[") and len(pattern) <= _LONGEST_PATH:
            # As corpora are found; Path.glob takes no absolute pattern.
            yield from glob(pattern, recursive=True)  # noqa: PTH207


def _exists(text: str) -> bool:
    if text == "mini":
        return True
    try:
        return bool(text.strip()) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
