"""An output that appears complete or not at all: a model folder, a folder of results, or one file.

Everything is written to a hidden sibling of the output, `.NAME.partial-PID-xxxxxxxx`, which is renamed at the end. Its
lock is held by the running process, so that a later run can tell an unfinished folder of a dead one, and remove it or go on
from it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from langslice.errors import Interruption, OutputError
from langslice.files.copy_ranges import fsync_path
from langslice.files.stale_outputs import leftovers_of, lock_of_dead, not_writable

Notice = Callable[[str], None]

AT_FDCWD = -100
RENAME_EXCHANGE = 2
MODEL_FILES = ("config.json", "slice.json", "modules.json", "export.json")


@contextmanager
def staging_folder(
    out: Path,
    *,
    source: Path,
    overwrite: bool = False,
    notice: Notice | None = None,
    resumes: Callable[[Path], bool] | None = None,
) -> Iterator[Path]:
    """Give a temporary sibling of `out` that becomes `out` by rename when the block ends, and vanishes when it fails.

    out         must not exist, unless `overwrite`; then the old folder is removed after the new one is in its place
    source      folder that is read; neither may lie inside the other
    notice      told what a user should know, such as an unfinished folder of an earlier run that was removed
    resumes     asked of an unfinished folder whether this work can go on from it. Then one that a killed run left is given
                instead of an empty one, and this one stays when a signal ends the block
    Raises      OutputError, before anything is made; Interruption when a signal came and the folder stays
    """
    check_output(out, source=source, overwrite=overwrite)
    out = _absolute(out)
    folder = _partial_name(out)
    lock = _clear_stale(out, folder, notice or (lambda text: None), resumes)
    try:
        with _terminating_by_exception():
            if lock is None:
                lock = _make(folder)
            yield folder
            for path in (folder, *folder.rglob("*")):
                fsync_path(path)
            _put_in_place(folder, out, overwrite)
    except (KeyboardInterrupt, SystemExit) as stop:
        if resumes is not None and resumes(folder):
            raise _interruption(folder, stop) from None
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise out_of_space(folder) from None
        raise
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def staging_file(path: Path) -> Iterator[Path]:
    """Give a hidden sibling of `path` that takes its place by rename when the block ends, and vanishes when it fails.

    path     an existing file is replaced; what is no regular file, such as /dev/stdout, is written as it is
    Raises   OutputError when the folder cannot be written, or the disk becomes full
    """
    path = Path(os.path.realpath(path.expanduser()))  # of a loop of links, too
    if path.exists() and not path.is_file():
        yield path
        return
    for stale in leftovers_of(path):
        lock = lock_of_dead(*stale)
        if lock is not None:
            stale[0].unlink(missing_ok=True)
            os.close(lock)
    partial = _partial_name(path)
    try:
        lock = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise not_writable(path, error) from None
    try:
        with _terminating_by_exception():
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield partial
            fsync_path(partial)
            partial.replace(path)
            fsync_path(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise out_of_space(path) from None
        raise
    finally:
        os.close(lock)


@contextmanager
def staging_results(out: Path) -> Iterator[Path]:
    """Give a temporary folder whose files end up in `out` when the block ends, and vanish when it fails.

    out      a new folder, which appears by one rename; in one that is there, each file and folder replaces the one of its name
    Raises   OutputError when the folder cannot be written, or the disk becomes full
    """
    out = _absolute(out)
    folder = _partial_name(out)
    lock = _clear_stale(out, folder, lambda text: None, None) or _make(folder)
    try:
        with _terminating_by_exception():
            yield folder
            for path in (*folder.rglob("*"), folder):
                fsync_path(path)
            if out.is_dir():
                for path in folder.iterdir():
                    if path.is_dir():
                        shutil.rmtree(out / path.name, ignore_errors=True)
                    path.replace(out / path.name)
                folder.rmdir()
            else:
                _put_in_place(folder, out, overwrite=False)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise out_of_space(folder) from None
        raise
    finally:
        os.close(lock)


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made, before work is done for one.

    Raises  OutputError
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written to", "choose another place")


def _partial_name(path: Path) -> Path:
    return path.parent / f".{path.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _make(folder: Path) -> int:
    """Make the unfinished folder and lock it; gives the descriptor that holds the lock."""
    try:
        folder.mkdir()
    except OSError as error:
        raise not_writable(folder, error) from None
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _interruption(folder: Path, stop: BaseException) -> Interruption:
    code = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 128 + signal.SIGINT
    return Interruption(
        f"interrupted; what was finished is kept\n  {folder}",
        "the same command goes on from there; remove the folder if you do not want it",
        code,
    )


def check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin when the disk cannot hold the output.

    Raises   OutputError that names what is needed and what is free
    """
    state = os.statvfs(folder)
    free_bytes = state.f_bavail * state.f_frsize
    if needed_bytes > free_bytes:
        raise out_of_space(folder, needed_bytes, free_bytes)


def out_of_space(folder: Path, needed_bytes: int | None = None, free_bytes: int | None = None) -> OutputError:
    """Say that the disk is too small, or became full on the way."""
    found = "it became full while writing" if free_bytes is None else f"found {free_bytes:,} bytes free"
    expected = "" if needed_bytes is None else f"expected {needed_bytes:,} bytes, "
    return OutputError(
        f"the disk is too small for the output\n  {folder.parent}\n  {expected}{found}",
        "free some space or choose another disk; nothing was kept",
    )


def _absolute(out: Path) -> Path:
    out = out.expanduser()
    return (out.parent.resolve() / out.name) if out.name not in ("", "..") else out.resolve()


def check_output(out: Path, *, source: Path, overwrite: bool = False) -> None:
    """Refuse an output that exists, cannot be made, or lies inside the source or around it.

    Raises  OutputError
    """
    out, source = _absolute(out), source.resolve()
    target = out.resolve()
    if target == source or target.is_relative_to(source):
        raise OutputError(
            f"the output lies inside the source\n  output {out}\n  source {source}", "choose a folder elsewhere"
        )
    if source.is_relative_to(target):
        raise OutputError(
            f"the source lies inside the output\n  output {out}\n  source {source}", "choose a folder elsewhere"
        )
    if not out.parent.is_dir():
        raise OutputError(f"the folder for the output does not exist\n  {out.parent}", f"mkdir -p {out.parent}")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"the output exists and is not a folder\n  {out}", "choose another name")
    if not out.exists():
        return
    if not overwrite:
        raise OutputError(f"the output exists\n  {out}", "choose another name, or pass --overwrite")
    names = [child.name for child in out.iterdir()]
    if names and not any(name in names for name in MODEL_FILES):
        raise OutputError(
            f"the output exists and is not a model folder\n  {out}\n  expected one of {', '.join(MODEL_FILES)}",
            "--overwrite replaces earlier outputs only; remove the folder yourself if you mean it",
        )


def _clear_stale(out: Path, folder: Path, notice: Notice, resumes: Callable[[Path], bool] | None) -> int | None:
    """Remove the unfinished folders of this output that nobody works in; one that can be gone on with becomes `folder`.

    Returns  descriptor that holds the lock of `folder`, None where there was none to go on with
    """
    taken: int | None = None
    for stale, pid in leftovers_of(out):
        lock = lock_of_dead(stale, pid) if stale.is_dir() else None
        if lock is None:
            continue
        if taken is None and resumes is not None and resumes(stale):
            stale.rename(folder)
            taken = lock
            continue
        shutil.rmtree(stale)
        os.close(lock)
        notice(f"removed {stale}, left unfinished by a run that was killed")
    return taken


@contextmanager
def _terminating_by_exception() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as SIGINT does, so that the unfinished folder is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    changed = {number: handler for number, handler in before.items() if handler is signal.SIG_DFL}
    for number in changed:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def _put_in_place(folder: Path, out: Path, overwrite: bool) -> None:
    if not out.exists():
        try:
            folder.rename(out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise _appeared(out) from None
    elif not overwrite:
        raise _appeared(out)
    elif _exchange(folder, out):
        shutil.rmtree(folder)  # now the old output, under the unfinished name
    else:
        old = out.parent / f".{out.name}.replaced-{uuid.uuid4().hex[:8]}"
        out.rename(old)
        try:
            folder.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old)
    fsync_path(out.parent)


def _appeared(out: Path) -> OutputError:
    return OutputError(f"the output appeared while it was being written\n  {out}", "choose another name")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where libc or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, or whose folder does not. Raises OutputError."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="choose another name, or pass --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", hint="make it first")
    check_writable(path.parent)
