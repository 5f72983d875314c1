"""Options of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import ReportError
from langslice.options import Entry, Options


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """What was measured of a slice, and what of it is shown."""

    error = ReportError

    results: Annotated[
        str | Path | Sequence[str | Path], Entry("Results of `langslice evaluate`. May be repeated.", "FILE", "-r")
    ] = ()
    scores: Annotated[
        str | Path | Sequence[str | Path], Entry("Scores of `langslice score`. May be repeated.", "FILE", "-s")
    ] = ()
    features: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Folder that `langslice features` wrote.", "DIR", "-f", alone=True),
    ] = ()
    recipe: Annotated[str | Path | None, Entry("Recipe that the slice was made with.", "FILE")] = None
    command: Annotated[
        str | Sequence[str] | None, Entry("Command to show instead of the one in slice.json.", typed=False)
    ] = None
    hashes: Annotated[bool, Entry("List the sha256 of every file of the slice.")] = True
    card: Annotated[bool, Entry("Update README.md too, unless a person edited it.")] = True
