"""What a sweep gives back: its runs, each with its result or its error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.sweeps.recipe import SweepRun


@dataclass(frozen=True)
class Finished:
    """A run with its result.

    key     of its folder below `runs`
    result  the evaluation as JSON; None where the run failed
    error   why
    reused  whether the result was there before
    """

    run: SweepRun
    key: str
    result: Mapping[str, Any] | None
    error: str
    reused: bool


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, in the order of the grid, and the folder with their results, tables and plots."""

    folder: Path
    runs: tuple[Finished, ...]
    tables: tuple[Path, ...] = ()
    plots: tuple[Path, ...] = ()

    @property
    def failed(self) -> tuple[Finished, ...]:
        """Runs without a result."""
        return tuple(run for run in self.runs if run.result is None)
