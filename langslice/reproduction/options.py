"""Options of a paper's experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import RecipeError
from langslice.options import Entry, Options


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(Options):
    """On which data, how much of it, and where."""

    error = RecipeError

    flores: Annotated[str | Path | None, Entry("flores200_dataset.", "DIR")] = None
    xnli: Annotated[str | Path | None, Entry("XNLI-1.0, or one file a language.", "DIR")] = None
    marc: Annotated[str | Path | None, Entry("dataset_CODE_test.json.", "DIR")] = None
    data: Annotated[str | Path | None, Entry("Folder of data sets in their usual layouts.", "DIR")] = None
    code: Annotated[str | Path | None, Entry("Source files of the code-refined condition.", "DIR")] = None
    limit: Annotated[int | None, Entry("Most items of each task and language.", short="-n", least=1)] = None
    rounds: Annotated[int | None, Entry("Rounds of kimkim2026's speed measurement (5).", least=1)] = None
    processes: Annotated[int, Entry("Runs of kim2024 at once.", least=1)] = 1
    ray: Annotated[str | None, Entry("Ray cluster for kim2024.", "ADDRESS")] = None
    published: Annotated[
        str | Path | None,
        Entry("Figures of the paper to stand beside ours: the form that a run leaves in its folder.", "FILE"),
    ] = None
    device: Annotated[str, Entry("auto, cpu, cuda.")] = "auto"
