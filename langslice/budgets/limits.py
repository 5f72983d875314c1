"""The budget: what a slice may take at most, of bytes and of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Final

from langslice.budgets.options import FitOptions
from langslice.errors import PlanError
from langslice.formatting import bytes_text
from langslice.planning.size_limit import parse_size

SIZE, MEMORY, LATENCY = "size", "memory", "latency"
RESOURCES: Final = (SIZE, MEMORY, LATENCY)
Limits = Mapping[str, float]
"""Resource -> the most that a slice may take: bytes; of time a share of the original's."""


@dataclass(frozen=True)
class Need:
    """What a structure takes of a resource: a fixed part, and more for each row of the vocabulary."""

    fixed: float
    per_row: float


Needs = Mapping[str, Need]
"""Resource -> what a structure takes of it."""


def read_limits(options: FitOptions) -> Limits:
    """The limits that are asked for.

    Raises  PlanError for none, and for what is none
    """
    limits: dict[str, float] = {}
    for name in (SIZE, MEMORY):
        asked = getattr(options, name)
        if asked is not None:
            limits[name] = parse_size(asked, f"--{name}")
    if options.latency is not None:
        limits[LATENCY] = _share(options.latency)
    if not limits:
        raise PlanError("no budget was given", "add --size 150MB, --memory 300MB or --latency 0.5x")
    return limits


def rows_that_fit(needs: Needs, limits: Limits, most: int, multiple: int | None) -> int:
    """How many rows of the vocabulary a structure leaves room for: at most `most`, 0 for none."""
    rows = float(most)
    for name, limit in limits.items():
        left = limit - needs[name].fixed
        rows = min(rows, left / needs[name].per_row if needs[name].per_row else inf if left >= 0 else 0)
    found = max(int(rows), 0)
    return found if found == most else found - found % (multiple or 1)


def taken(needs: Needs, rows: int) -> dict[str, float]:
    """Resource -> what a structure with so many rows takes."""
    return {name: need.fixed + rows * need.per_row for name, need in needs.items()}


def amount_text(resource: str, amount: float) -> str:
    """`150.0 MB`, `0.52x`."""
    return f"{amount:.2f}x" if resource == LATENCY else bytes_text(amount)


def _share(asked: float | str) -> float:
    text = str(asked).strip().lower().removesuffix("x")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not (isfinite(share) and 0 < share < 1):
        raise PlanError(f"--latency {asked} is no share of the original's time", "write 0.5x for half of it")
    return share
