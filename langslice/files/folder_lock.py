"""Holding a folder, so that two processes never write results into it at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langslice.errors import RecipeError


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder of results; it is made where it does not exist.

    what    such as "sweep", for the message
    Raises  RecipeError when another process holds it
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(f"another {what} is running in {folder}", "wait for it, or name another folder") from None
        yield
