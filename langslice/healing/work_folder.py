"""The folder next to an output in which a run keeps what it can go on from: `.NAME.healing`.

run.json      which run it is: settings, and digests of the model, the text and the teacher
before.json   the loss on held-out text before training
checkpoints/  Trainer's
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langslice.errors import HealError
from langslice.files.copy_ranges import fsync_path
from langslice.healing.options import HealOptions
from langslice.healing.student import HealedFolder
from langslice.healing.trainer import is_first, last_checkpoint, processes
from langslice.version import __version__


class InterruptedRun(HealError):
    """A run that its user stopped, and that can go on."""

    exit_code = 130


def work_folder(out: Path) -> Path:
    """The folder next to an output that holds what an unfinished run goes on from."""
    return out.parent.resolve() / f".{out.name}.healing"


@contextmanager
def locked_folder(out: Path) -> Iterator[Path]:
    """A folder next to the output that survives a kill; one run at a time writes to it."""
    work = work_folder(out)
    if not is_first():
        yield work
        return
    work.mkdir(exist_ok=True)
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield work
    except BlockingIOError:
        raise HealError(f"another run is healing into {out}", "wait for it, or choose another name") from None
    except BaseException:
        if last_checkpoint(work) is None:
            shutil.rmtree(work, ignore_errors=True)  # nothing to go on from
        raise
    finally:
        os.close(lock)


def begin(source: HealedFolder, work: Path, settings: HealOptions, *content: str) -> None:
    """Say in the work folder which run it belongs to, or refuse one that belongs to another.

    content  digests of what is read: text, teacher
    """
    from langslice.healing.teacher import content_digest

    if not is_first():
        return
    described = {**settings.shaping(), "processes": processes(), "langslice": __version__}
    run = {"settings": described, "model": content_digest(source.checkpoint), "content": list(content)}
    digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    note = work / "run.json"
    if note.is_file() and settings.resume and last_checkpoint(work) is not None:
        found = json.loads(note.read_text(encoding="utf-8"))
        if found["digest"] != digest:
            names = [name for name, value in described.items() if found["settings"].get(name) != value]
            raise HealError(
                f"{work} holds an unfinished run of another kind: {', '.join(names) or 'model, text or teacher'} differ",
                "repeat that run, or pass --no-resume to begin anew",
            )
        return
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    note.write_text(json.dumps({"digest": digest, **run}, indent=1), encoding="utf-8")
    fsync_path(work)
