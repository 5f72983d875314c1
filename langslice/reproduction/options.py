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

    flores: Annotated[str | Path | None, Entry("Folder of FLORES-200 (flores200_dataset).", "DIR")] = None
    xnli: Annotated[str | Path | None, Entry("Folder of XNLI-1.0, or with one file per language.", "DIR")] = None
    marc: Annotated[str | Path | None, Entry("Folder of MARC (dataset_CODE_test.json).", "DIR")] = None
    data: Annotated[str | Path | None, Entry("Folder of local data sets in their usual layouts.", "DIR")] = None
    code: Annotated[str | Path | None, Entry("Source code for the code-refined condition: a folder.", "PATH")] = None
    limit: Annotated[int | None, Entry("Maximum number of items per task and language.", "N", "-n", least=1)] = None
    tasks: Annotated[tuple[str, ...], Entry("Tasks of the paper to run. Default: all.", "NAMES", codes=True)] = ()
    languages: Annotated[
        tuple[str, ...],
        Entry(
            "Languages of kim2024, each translated into English. Default: en,fr,es,zh,hi,sw.", "CODES", "-l", codes=True
        ),
    ] = ()
    sparsities: Annotated[
        tuple[str, ...],
        Entry("Sparsities of kim2024, that of the main tables first: 0.3,0.1,0.5. Default: 0.3.", "SHARES", codes=True),
    ] = ()
    seeds: Annotated[
        int | None,
        Entry("Number of seeds of calibration text and random masks of kim2024, from 0 on. Default: 1.", "N", least=1),
    ] = None
    prompts: Annotated[
        int | None, Entry("Demonstrations per calibration set of kim2024. Default: 100.", "N", least=1)
    ] = None
    separator: Annotated[
        str | None,
        Entry(
            "Text after each line of a translation prompt of kim2024; {eos} is the end-of-text token. Default: {eos}.",
            "TEXT",
        ),
    ] = None
    new_tokens: Annotated[int, Entry("Max new tokens per translation or answer.", "N", least=1)] = 64
    rounds: Annotated[int | None, Entry("Rounds of the speed measurement of kimkim2026. Default: 5.", "N", least=1)] = (
        None
    )
    processes: Annotated[int, Entry("Parallel runs of kim2024.", "N", least=1)] = 1
    ray: Annotated[str | None, Entry("Ray cluster to use: auto, host:port, ray://host:port, or local.", "ADDRESS")] = (
        None
    )
    published: Annotated[
        str | Path | None,
        Entry("Figures of the paper to compare with, in the form that a run writes into its folder.", "FILE"),
    ] = None
    device: Annotated[str, Entry("Device: auto, cpu, cuda, cuda:1.", "DEVICE")] = "auto"
