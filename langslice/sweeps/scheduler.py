"""Many jobs at once: each in a process of its own on this machine, or each as a task of a Ray cluster.

A process is forked from a server that has imported the libraries and nothing else, so that it starts fast and what it used
is gone when it ends. It ends too when the sweep is killed. Results appear under their final name only when they are whole.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from langslice.cluster.ray_cluster import connected, run_tasks
from langslice.errors import LangsliceError
from langslice.sweeps.job import perform

RESULT: Final = "result.json"
ERROR: Final = "error.txt"
LOG: Final = "log.txt"
# Imported once, by the server. transformers imports by itself only what is used.
PRELOAD: Final = [
    "numpy", "torch", "transformers", "transformers.modeling_utils", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "transformers.generation.utils", "langslice.slicing.main",
    "langslice.planning.build", "langslice.counting", "langslice.evaluation.main", "langslice.evaluation.label_scores",
]  # fmt: skip
_POLL_SECONDS: Final = 0.05

Job = Mapping[str, Any]
Done = Callable[[str], None]


def run_in_processes(jobs: Mapping[str, Job], folder: Path, *, processes: int, done: Done) -> None:
    """Perform jobs, so many at a time; what happens to each is in its folder.

    jobs    key -> job
    folder  holds a folder for each key
    done    told the key of each job as it ends, well or not
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    waiting = list(jobs.items())
    running: dict[str, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                key, job = waiting.pop(0)
                place = _fresh(folder / key)
                threads = max(1, (os.cpu_count() or 1) // processes)
                process = context.Process(target=_work, args=(dict(job), str(place), threads), daemon=True)
                process.start()
                running[key] = process
            for key, process in list(running.items()):
                if not process.is_alive():
                    process.join()
                    _check_end(folder / key, process.exitcode)
                    del running[key]
                    done(key)
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def run_on_ray(jobs: Mapping[str, Job], folder: Path, *, address: str, processes: int, done: Done) -> None:
    """Perform jobs as tasks of a Ray cluster, one CPU each, and write what they return here.

    address  of a cluster (`auto`, host:port, ray://…), or `local`: one started here with so many CPUs, and stopped again
    Raises   ClusterError without the package, or when the cluster cannot be reached
    """
    with connected(address, cpus=processes) as ray:
        for outcome in run_tasks(ray, _work_far, ((key, (dict(job),)) for key, job in jobs.items())):
            result, reason = (None, outcome.lost) if outcome.lost else outcome.value
            _write(_fresh(folder / outcome.key), result, reason)
            done(outcome.key)


def _work_far(job: Job) -> tuple[dict[str, Any] | None, str]:
    """Perform a job on a machine of a cluster, which may not see this one's disk."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="langslice-sweep-") as folder:
        return _attempt(job, Path(folder) / "work")


def _work(job: Job, place: str, threads: int) -> None:
    """Perform a job in this process, everything that it prints going to its log."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    folder = Path(place)
    with (folder / LOG).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        import torch

        # Not more than torch takes by itself (OMP_NUM_THREADS): threads without a core wait for each other at full load.
        torch.set_num_threads(min(threads, torch.get_num_threads()))
        _write(folder, *_attempt(job, folder / "work"))


def _attempt(job: Job, work: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        return perform(job, work), ""
    except LangsliceError as error:
        return None, str(error)
    except Exception:  # noqa: BLE001 - a run that fails in a library must not end the sweep; its error is shown
        return None, traceback.format_exc()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _fresh(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, ERROR, LOG):
        (place / name).unlink(missing_ok=True)
    return place


def _write(place: Path, result: dict[str, Any] | None, error: str) -> None:
    if result is None:
        (place / ERROR).write_text(error, encoding="utf-8")
        return
    partial = place / f"{RESULT}.partial"
    partial.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    partial.replace(place / RESULT)


def _check_end(place: Path, code: int | None) -> None:
    if (place / RESULT).exists() or (place / ERROR).exists():
        return
    why = f"see {place / LOG}"
    if code == 1 and not (place / LOG).exists():  # the first thing that a job does is to open it
        why = 'it could not begin: a Python script that starts jobs must do so below `if __name__ == "__main__":`'
    (place / ERROR).write_text(f"the process ended with code {code}; {why}", encoding="utf-8")


def failures(keys: Sequence[str], folder: Path) -> dict[str, str]:
    """Key -> error, of jobs that did not end well."""
    found = {}
    for key in keys:
        if not (folder / key / RESULT).exists():
            path = folder / key / ERROR
            found[key] = path.read_text(encoding="utf-8") if path.exists() else "it did not run"
    return found
