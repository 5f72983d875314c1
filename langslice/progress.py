"""How work says what it is doing."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

_logger = logging.getLogger("langslice")
Report = Callable[[str, int, int], None]
"""Called as work goes on: what is being done, how much is done, how much there is (0 when unknown; bytes for shards)."""

_record: ContextVar[Report | None] = ContextVar("progress_record", default=None)
# Seconds between two lines about one step.
_PAUSE = 0.2


def silent(step: str, done: int, total: int) -> None:
    """Report nothing."""


def logged() -> Report:
    """A report that logs each step when it begins, under the name `langslice`; for functions that are given none."""
    last = ""

    def report(step: str, done: int, total: int) -> None:
        nonlocal last
        if step != last:
            _logger.info("%s", step)
        last = step

    return report


@contextmanager
def shown() -> Iterator[Report]:
    """A report for functions that are given none: logged, and as a bar on stderr where that is a terminal, or in a notebook."""
    log = logged()
    if not (_in_notebook() or sys.stderr.isatty()):
        yield log
        return
    bar = _bar_class()(desc="starting", leave=False, unit="", unit_scale=True)
    last = ""

    def report(step: str, done: int, total: int) -> None:
        nonlocal last
        log(step, done, total)
        if step != last:
            bar.reset(total=total or None)
            bar.set_description_str(step, refresh=False)
        last, bar.total, bar.n = step, total or None, done
        bar.refresh()

    try:
        yield report
    finally:
        bar.close()


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Also write progress to a file as long as the context lasts, for programs that watch: a line of JSON for each event.

    path   appended to; its folder must exist. A line has `time` in seconds since 1970, and what a Report is called with:
           `step`, `done`, `total`. Of one step, five lines a second at most
    """
    with path.open("a", encoding="utf-8") as file:
        token = _record.set(_recorder(file))
        try:
            yield
        finally:
            _record.reset(token)


def with_record(report: Report) -> Report:
    """A report that also writes to the file of `recorded`, if there is one."""
    record = _record.get()
    if record is None:
        return report

    def both(step: str, done: int, total: int) -> None:
        record(step, done, total)
        report(step, done, total)

    return both


def _recorder(file: TextIO) -> Report:
    last, written = "", 0.0

    def record(step: str, done: int, total: int) -> None:
        nonlocal last, written
        now = time.time()
        if step == last and now - written < _PAUSE:
            return
        last, written = step, now
        event = {"time": round(now, 3), "step": step, "done": int(done), "total": int(total)}
        file.write(json.dumps(event, ensure_ascii=False) + "\n")
        file.flush()

    return record


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; IPython in a terminal is none."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _bar_class() -> Any:
    """The bar of tqdm that fits: widgets in a notebook that has them, text elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook lacks widgets; text is shown instead
        from tqdm.autonotebook import tqdm

    return tqdm


def adding_up(report: Report, step: str, total: int) -> Callable[[int], None]:
    """Turn sizes of pieces into the running sum that a report shows."""
    done = 0

    def add(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        report(step, done, total)

    return add
