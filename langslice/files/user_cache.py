"""What takes long to work out and stays true, kept in the user's cache folder by a key of everything that decides it.

The folder is `LANGSLICE_CACHE`, else `langslice` in `XDG_CACHE_HOME` or in `~/.cache`; with `LANGSLICE_CACHE=` nothing is kept.
It can be deleted at any time. An entry that is damaged, or a folder that cannot be written, costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_DIGEST_BYTES = 32


def cache_folder() -> Path | None:
    """Where results are kept; None for nowhere."""
    named = os.environ.get("LANGSLICE_CACHE")
    if named is not None:
        return Path(named).expanduser() if named else None
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path("~/.cache").expanduser()) / "langslice"
    except RuntimeError:  # nobody's home
        return None


@contextmanager
def without_cache() -> Iterator[None]:
    """Work everything out anew, and keep nothing, here and in processes that are started meanwhile."""
    before = os.environ.get("LANGSLICE_CACHE")
    os.environ["LANGSLICE_CACHE"] = ""
    try:
        yield
    finally:
        os.environ.pop("LANGSLICE_CACHE")
        if before is not None:
            os.environ["LANGSLICE_CACHE"] = before


def cached(kind: str, key: Iterable[str], make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` gives, from the cache where they were made before.

    kind  name of a folder in the cache, for people
    key   everything that decides the bytes
    """
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / kind / hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()
    found = _read(path)
    if found is None:
        found = make()
        _write(path, found)
    return found


def _read(path: Path) -> bytes | None:
    """An entry whose digest is right; None for any other."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = content[_DIGEST_BYTES:]
    return body if hashlib.sha256(body).digest() == content[:_DIGEST_BYTES] else None


def _write(path: Path, body: bytes) -> None:
    """Write an entry at once: another process sees the whole of it or nothing."""
    import tempfile

    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        Path(temporary).replace(path)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def code_digest(*modules: str) -> str:
    """Digest of the source text of modules, by their files: a key that changes when what computes changes."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()
