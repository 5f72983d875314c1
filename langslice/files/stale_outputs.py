"""Unfinished outputs that a killed run left: which there are, and whether anybody still works in them."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from langslice.errors import OutputError

_YOUNG_SECONDS = 60


def leftovers_of(out: Path) -> list[tuple[Path, int]]:
    """Unfinished siblings of an output, with the number of the process that made each."""
    prefix = f".{out.name}.partial-"
    found: list[tuple[Path, int]] = []
    try:
        children = sorted(child for child in out.parent.iterdir() if child.name.startswith(prefix))
    except OSError as error:
        raise not_writable(out, error) from None
    for child in children:
        pid, _, tag = child.name.removeprefix(prefix).partition("-")
        if pid.isascii() and pid.isdigit() and len(tag) == 8 and not child.is_symlink():
            found.append((child, int(pid)))
    return found


def lock_of_dead(folder: Path, pid: int) -> int | None:
    """Lock an unfinished folder or file that nobody works in; None where somebody does, or may.

    The lock decides: it goes with its process, while in containers every run has the same few numbers. A young folder whose
    process lives may not have been locked yet.
    """
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None  # another run has removed it, or taken it over
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        young = time.time() - os.fstat(lock).st_ctime < _YOUNG_SECONDS
        if (young and pid != os.getpid() and _is_alive(pid)) or not _is_at(lock, folder):
            os.close(lock)
            return None
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it lives, and belongs to somebody else
    return True


def not_writable(path: Path, error: OSError) -> OutputError:
    """Say that nothing can be made, or looked for, next to an output."""
    return OutputError(f"cannot write next to the output\n  {path.parent}\n  {error.strerror}", "choose another place")
