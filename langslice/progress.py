"""How work says what it is doing."""

from __future__ import annotations

import logging
from collections.abc import Callable

_logger = logging.getLogger("langslice")
Report = Callable[[str, int, int], None]
"""Called as work goes on: what is being done, how much is done, how much there is (0 when unknown; bytes for shards)."""


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


def adding_up(report: Report, step: str, total: int) -> Callable[[int], None]:
    """Turn sizes of pieces into the running sum that a report shows."""
    done = 0

    def add(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        report(step, done, total)

    return add
