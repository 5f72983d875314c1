"""One job of a sweep: measure a model as it is, or make a cut and measure that beside it. No job knows of others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langslice.errors import RecipeError
from langslice.evaluate.measurement import measurement_from_json
from langslice.sweep.recipe import STEPS, sparsity_module

# Of the evaluation, what does not change what is measured.
_COMPARING = ("resamples", "seed")


def perform(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Do a job.

    job      {"model", "evaluate"} to measure a model; with steps and "original", the measurements of the model as it is,
             to cut it and compare
    work     folder for what is made on the way; emptied first, removed afterwards unless the job says `keep`
    Returns  {"measured": …} or the evaluation as JSON
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        return _measured(job) if "original" not in job else _compared(job, work)
    finally:
        if not job.get("keep"):
            shutil.rmtree(work, ignore_errors=True)


def _settings(job: Mapping[str, Any]) -> Any:
    from langslice.evaluate.settings import make_settings

    entries = {name: value for name, value in job["evaluate"].items() if name not in _COMPARING}
    return make_settings(**{"tasks": "perplexity", "languages": (), **entries})


def _measured(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measurements of a model as it is; speed is left to runs, where both models take turns."""
    from langslice.evaluate.preparing import prepare
    from langslice.evaluate.run import describe, measure_model, open_model, refuse_unfit

    settings = _settings(job)
    checkpoint = open_model(job["model"])
    prepared = prepare(settings)
    refuse_unfit(prepared, checkpoint, settings)
    found, notes = measure_model(checkpoint, prepared, settings)
    return {"measured": [each.to_json() for each in found], "notes": notes, "model": describe(checkpoint)}


def _compared(job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    from langslice.evaluate.preparing import prepare
    from langslice.evaluate.results import Evaluation, compare
    from langslice.evaluate.run import describe, measure_model, open_model, speed_measurements

    settings = _settings(job)
    checkpoints = {"original": open_model(job["model"])}
    steps = [name for name in job if name in STEPS]
    if steps:
        checkpoints["slice"] = open_model(make_model(job, steps, work))
    measured = {"original": [measurement_from_json(each) for each in job["original"]["measured"]]}
    prepared = prepare(settings)
    notes = {"tasks": list(prepared.notes), "original": job["original"]["notes"]}
    if steps:
        measured["slice"], notes["slice"] = measure_model(checkpoints["slice"], prepared, settings)
    if prepared.speed:
        for role, found in speed_measurements(checkpoints, settings).items():
            measured[role] += found
    comparing = {"resamples": 1000, "seed": 0, **{n: job["evaluate"][n] for n in _COMPARING if n in job["evaluate"]}}
    return Evaluation(
        {role: describe(checkpoint) for role, checkpoint in checkpoints.items()},
        {**asdict(settings), **comparing},
        compare(measured["original"], measured.get("slice"), **comparing),
        notes,
    ).to_json()


def make_model(job: Mapping[str, Any], steps: list[str], work: Path) -> Path:
    """Do the steps one after the other; each reads the folder that the one before it made."""
    from langslice import job as jobs
    from langslice.evaluate.run import open_model

    source = open_model(job["model"]).folder
    for number, step in enumerate(steps):
        out = work / f"{number}-{step}"
        if step == "slice":
            jobs.slice(source, out, verify=False, **job[step])
        else:
            sparsity_module().prune_copy(source, out, sparsity_request(job[step], job["evaluate"].get("data")))
        source = out
    return source


def sparsity_request(entries: Mapping[str, Any], data: str | None) -> Any:
    """A recipe's `sparsify`, with `keep` and `avoid` laid out as demonstrations."""
    given = {name: value for name, value in entries.items() if name not in ("keep", "avoid")}
    for name in ("keep_demos", "avoid_demos", "linears"):
        if name in given:
            given[name] = (given[name],) if isinstance(given[name], str) else tuple(given[name])
    for name in ("keep", "avoid"):
        if name in entries:
            given[f"{name}_demos"] = (*given.get(f"{name}_demos", ()), *demonstrations(entries[name], data))
    return sparsity_module().SparsityRequest(**given)


def demonstrations(entries: Mapping[str, Any], data: str | None) -> list[Any]:
    """Lay out demonstrations from local data, or the package's sentences: `kind` is mt, mono or code.

    entries  see recipe.DEMONSTRATION_ENTRIES; what is not given is as Kim et al. 2024 have it
    Raises   RecipeError, TaskError, CorpusError
    """
    from dataclasses import fields, replace
    from importlib import import_module

    from langslice.choice import codes
    from langslice.choose.languages import parse_languages
    from langslice.evaluate.parallel import read_parallel

    room = import_module("langslice.demonstrations")
    names = {field.name for field in fields(room.Layout)}
    layout = replace(room.KIM2024, **{name: value for name, value in entries.items() if name in names})
    kind = entries.get("kind", "mt")
    if kind == "code":
        paths = [entries["path"]] if "path" in entries else []
        if not paths:
            raise RecipeError("demonstrations of code need `path`", "a folder of source files, or a jsonl file")
        sources = room.read_code(paths, text_field=entries.get("text_field", "text"))
        return list(room.code_demonstrations(sources, layout, condition=entries.get("condition", "code")))
    languages = tuple(language.tag for language in parse_languages(codes(entries.get("languages", ""))))
    wanted = {"mt": 2, "mono": 1}.get(kind)
    if wanted is None:
        raise RecipeError(f"unknown kind of demonstrations {kind!r}", "mt, mono or code")
    if len(languages) != wanted:
        raise RecipeError(f"demonstrations of kind {kind} need {wanted} languages, found {len(languages)}", None)
    folder = entries.get("data", data)
    text = read_parallel("demonstrations", languages, None if folder is None else Path(folder))
    lines = text.shots or text.lines
    if kind == "mono":
        return list(room.text_demonstrations(lines[languages[0]], languages[0], layout))
    pairs = list(zip(lines[languages[0]], lines[languages[1]], strict=True))
    return list(room.parallel_demonstrations(pairs, languages, layout))
