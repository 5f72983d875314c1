"""Jobs: each a process of its own, with all that is known of it in a folder, so that it outlives tabs and the server.

The folder's lock is held by the job's processes and by nothing else: whoever can take it knows that the job does not run. A job
is called by a digest of what it does, so that what is asked for again is the same job, which goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock, Thread
from typing import Any, Final

from langslice.errors import PlanError

_NAME: Final = re.compile(r"[0-9a-f]{12}\Z")
# Runs the command after it, and leaves its exit code in a file that is whole or absent.
_SHELL: Final = '"$@"; echo $? > exit.partial && mv exit.partial exit'
_TAIL_BYTES: Final = 4000
RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"


@dataclass(frozen=True)
class JobRequest:
    """What a job does.

    kind    "tradeoff", "scores" or "slice"
    model   its name on the pages
    words   of the command, after `langslice`; run in the job's folder
    recipe  text of recipe.yaml there; "" for none
    wish    query of the pages that it was started from
    state   what else its result depends on, such as the model's files
    """

    kind: str
    model: str
    words: tuple[str, ...]
    recipe: str
    wish: str
    state: str = ""

    @property
    def name(self) -> str:
        """Twelve hexadecimal digits of what decides the result."""
        said = json.dumps([self.kind, self.words, self.recipe, self.state])
        return hashlib.sha256(said.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Event:
    """What a job was doing last: a step, how much of it is done, how much there is (0 where that is not known)."""

    step: str = "starting"
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class StudioJob:
    """A job as it is now.

    status   "running", "done", "failed" (it ended with an error) or "stopped" (it was killed; it can go on)
    steps    what was reported so far, each step once
    message  the end of what it printed
    """

    folder: Path
    request: JobRequest
    status: str
    started: float
    event: Event
    steps: tuple[str, ...]
    message: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    def result(self, path: str) -> Path | None:
        """A file that it made; None for what is not there, and for what is not inside its folder."""
        found = (self.folder / path).resolve()
        return found if found.is_relative_to(self.folder.resolve()) and found.is_file() else None


class Jobs:
    """The jobs of a work folder."""

    def __init__(self, folder: Path, command: Sequence[str] = (sys.executable, "-m", "langslice")) -> None:
        self._folder = folder
        self._command = tuple(command)
        # To look whether a job runs is to take its lock for a moment.
        self._looking = RLock()
        folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[StudioJob]:
        """Every job, the one that was started last first."""
        found = [job for path in self._folder.iterdir() if (job := self.find(path.name)) is not None]
        return sorted(found, key=lambda job: -job.started)

    def find(self, name: str) -> StudioJob | None:
        """The job of a name; None where there is none, whatever the name is."""
        folder = self._folder / name
        if not _NAME.match(name) or folder.is_symlink():
            return None
        try:
            document = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            fields = {**document["request"], "words": tuple(document["request"]["words"])}
            request, started = JobRequest(**fields), float(document["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        steps, event = _events(folder / "progress.jsonl")
        with self._looking:
            status = _status(folder)
        return StudioJob(folder, request, status, started, event, steps, _tail(folder / "log.txt"))

    def start(self, request: JobRequest) -> StudioJob:
        """Start a job, or let it go on where it was killed; one that runs or is done is left as it is.

        Raises  PlanError while another job runs: two would share the machine's memory
        """
        with self._looking:
            known = self.find(request.name)
            if known is not None and known.status in (RUNNING, DONE):
                return known
            running = next((job for job in self.all() if job.status == RUNNING), None)
            if running is not None:
                raise PlanError(f"job {running.name} is running, and one runs at a time", "wait for it, or stop it")
            folder = self._folder / request.name
            folder.mkdir(exist_ok=True)
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._launch(folder, request, lock.fileno())
            return self._known(request.name)

    def stop(self, name: str) -> None:
        """End a job that runs, with all its processes; it can go on later."""
        job = self.find(name)
        if job is None or job.status != RUNNING:
            return
        with suppress(ProcessLookupError, ValueError, OSError):
            os.killpg(int((job.folder / "pid").read_text()), signal.SIGKILL)
        for _ in range(100):
            with self._looking:
                if _status(job.folder) != RUNNING:
                    return
            time.sleep(0.05)

    def _known(self, name: str) -> StudioJob:
        job = self.find(name)
        if job is None:
            raise PlanError(f"job {name} cannot be read", "delete its folder, and start it again")
        return job

    def _launch(self, folder: Path, request: JobRequest, lock: int) -> None:
        (folder / "exit").unlink(missing_ok=True)
        if request.recipe:
            (folder / "recipe.yaml").write_text(request.recipe, encoding="utf-8")
        _write_json(folder / "job.json", {"request": asdict(request), "started": time.time()})
        command = (*self._command, "--progress", "progress.jsonl", *request.words)
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _SHELL, "sh", *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(lock,), start_new_session=True,
            )  # fmt: skip
        (folder / "pid").write_text(str(process.pid))
        # Whoever starts a process must hear of its end, or an entry of it stays with the system.
        Thread(target=process.wait, daemon=True).start()


def _status(folder: Path) -> str:
    try:
        with (folder / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return RUNNING
    except OSError:
        return STOPPED
    try:
        code = int((folder / "exit").read_text())
    except (OSError, ValueError):
        return STOPPED
    # 128 and more: ended by a signal, such as when memory ran out.
    return DONE if code == 0 else STOPPED if code > 128 else FAILED


def _events(path: Path) -> tuple[tuple[str, ...], Event]:
    steps: dict[str, None] = {}
    event = Event()
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(ValueError, KeyError):  # a line that a kill cut off
            said = json.loads(line)
            event = Event(str(said["step"]), int(said["done"]), int(said["total"]))
            steps[event.step] = None
    return tuple(steps), event


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
        return file.read().decode(errors="replace")


def _write_json(path: Path, document: Any) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document), encoding="utf-8")
    partial.replace(path)
