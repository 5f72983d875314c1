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

    base: Annotated[str | Path, Entry("The model that it was cut from: a folder or hub id.", "MODEL")]
    plan: Annotated[
        str | Path | None, Entry("slice.json of the slice, where HEALED has none (trained elsewhere).", "FILE")
    ] = None
    everything: Annotated[
        bool, Entry("Bring back layers, heads, neurons and pruned weights too, with the base's values.")
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

    plan: Annotated[str | Path, Entry("slice.json of the slice, or its plan.", "FILE")]
    to: Annotated[
        str | None,
        Entry("slice or original; by default the side that the adapter does not fit yet.", "SIDE", values=DIRECTIONS),
    ] = None
    base: Annotated[
        str | Path | None, Entry("The original, where the adapter holds whole tables to fill up.", "MODEL")
    ] = None
