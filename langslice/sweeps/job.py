"""One job of a sweep: measure a model as it is, or make a slice and measure that next to it. No job knows of others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langslice.model.checkpoint import open_checkpoint
from langslice.recipes.execution import SUFFIXES, compare_models, make_input, make_model, measure
from langslice.recipes.parts import INPUTS, STEPS
from langslice.recipes.references import MODEL, resolved


def perform(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Do a job.

    job      {"model", "evaluate"} to measure a model; with steps and "original", the measurements of the model as it is,
             to slice it and compare
    work     folder for what is made on the way; emptied first, removed afterwards unless the job says `keep`
    Returns  {"measured": …} or the evaluation as JSON
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if "original" not in job:
            return measure(job["model"], job["evaluate"], revision=job.get("revision"))
        return _compared(job, work)
    finally:
        if not job.get("keep"):
            shutil.rmtree(work, ignore_errors=True)


def _compared(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    original = open_checkpoint(job["model"], revision=job.get("revision"))
    made = {MODEL: original.folder, **_inputs(job, work)}
    source = original.folder
    for number, step in enumerate([name for name in job if name in STEPS]):
        out = work / f"{number}-{step}"
        make_model(step, resolved(job[step], made), source, out, data=job["evaluate"].get("data"))
        source = out
    result = None if source == original.folder else source
    return compare_models(original, job["original"], result, job["evaluate"], items=True)


def _inputs(job: Mapping[str, Any], work: Path) -> dict[str, Path]:
    """Make what the steps refer to by name."""
    made = {}
    for kind in INPUTS:
        for name, entries in (job.get(kind) or {}).items():
            made[name] = work / kind / f"{name}{SUFFIXES[kind]}"
            given = resolved(entries, {MODEL: Path(job["model"])})
            make_input(kind, given, made[name], model=job["model"], revision=job.get("revision"))
    return made
