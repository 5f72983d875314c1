"""Options of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from langslice.errors import RecipeError
from langslice.options import Entry, Options, Ray


@dataclass(frozen=True, kw_only=True)
class SweepOptions(Options):
    """Where its runs are done."""

    error = RecipeError

    processes: Annotated[int, Entry("Parallel runs on this machine.", "N", least=1)] = 1
    ray: Ray = None
