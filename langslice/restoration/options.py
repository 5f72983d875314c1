"""Options of a restored model, and of an adapter that moves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Entry, Options, SourceOptions, Threads, VerificationOptions

DIRECTIONS: Final = ("slice", "original")


@dataclass(frozen=True, kw_only=True)
class Restored(Options):
    """What comes back."""

    base: Annotated[str | Path, Entry("Model that the slice was made from: a folder or hub id.", "MODEL")]
    plan: Annotated[
        str | Path | None, Entry("slice.json of the slice, if HEALED has none (trained elsewhere).", "FILE")
    ] = None
    everything: Annotated[
        bool, Entry("Also restore layers, heads, neurons and pruned weights, with the values of the base.")
    ] = False
    threads: Threads = 2


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(SourceOptions, VerificationOptions, Restored):
    """What comes back, from which base, and how it is proven."""

    error = PlanError


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Options):
    """Which slice an adapter is carried to, or from."""

    error = PlanError

    plan: Annotated[str | Path, Entry("slice.json of the slice, or its plan file.", "FILE")]
    to: Annotated[
        str | None,
        Entry(
            "Target: slice or original. Default: the one that the adapter does not fit yet.",
            "TARGET",
            values=DIRECTIONS,
        ),
    ] = None
    base: Annotated[
        str | Path | None,
        Entry("Original model, if the adapter holds whole embedding matrices that must be completed.", "MODEL"),
    ] = None
