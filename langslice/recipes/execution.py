"""Parts of a recipe, done: inputs laid out and counted, models sliced and healed, measured and compared.

What each part means is the room's that does it; this file only calls it. Which parts there are, and in which order, is steps.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from langslice.errors import RecipeError
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.progress import Report, silent
from langslice.recipes.parts import room

COMPARING: Final = ("resamples", "seed")
"""Of the evaluation, what does not change what is measured."""
SUFFIXES: Final = {"count": ".parquet", "score": ".parquet", "demonstrations": ".jsonl"}


def make_input(
    kind: str, entries: Mapping[str, Any], out: Path, *, model: str | None, revision: str | None = None,
    report: Report = silent,
) -> None:  # fmt: skip
    """Make the file of a part that others read, as the command of its name does, and replace an earlier one.

    kind     count, score, demonstrations or features
    entries  with the files in the place of references
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "demonstrations":
        from langslice.demonstrations.main import make_demonstrations

        make_demonstrations(out, overwrite=True, **entries)
    elif kind == "features":
        from langslice.features.main import find_features

        find_features(model, out, overwrite=True, revision=revision, report=report, **entries)
    elif kind == "count":
        from langslice.slicing import main as job

        job.count(model, revision=revision, report=report, **entries).save(out)
    else:
        from langslice.scoring.main import score
        from langslice.scoring.pictures import can_draw, draw_scores

        scores = score(model, revision=revision, report=report, **entries)
        scores.save(out)
        if can_draw():
            draw_scores(scores, out.with_suffix(".png"))


def make_model(
    step: str, entries: Mapping[str, Any], source: str | Path, out: Path, *, data: str | None = None,
    work: Path | None = None, report: Report = silent,
) -> None:  # fmt: skip
    """Do a step to a model, without verification; an earlier output is replaced.

    step    slice, sparsify or heal
    source  the model before it
    data    folder of local data sets, for demonstrations of `sparsify`
    work    folder in which `sparsify` survives a kill
    """
    if step == "slice":
        from langslice.slicing import main as job

        job.slice(source, out, verify=False, overwrite=True, report=report, **entries)
    elif step == "sparsify":
        from langslice.sparsity import prune_copy

        request = sparsity_request(entries, data)
        prune_copy(source, out, request, work=work, overwrite=True, report=report)
    else:
        room("langslice.healing").heal(Path(source), out, heal_settings(entries), overwrite=True, report=report)


def sparsity_request(entries: Mapping[str, Any], data: str | None) -> Any:
    """A recipe's `sparsify`, with `keep` and `avoid` laid out as demonstrations."""
    from langslice.sparsity.request import SparsityRequest, request_options

    fields = {option.called: option.name for option in request_options().values()}
    given = {fields[name]: value for name, value in entries.items() if name not in ("keep", "avoid")}
    for name in ("keep_demos", "avoid_demos", "linears"):
        if name in given:
            given[name] = (given[name],) if isinstance(given[name], str) else tuple(given[name])
    for name in ("keep", "avoid"):
        if name in entries:
            given[f"{name}_demos"] = (*given.get(f"{name}_demos", ()), *demonstrations(entries[name], data))
    return SparsityRequest(**given)


def demonstrations(entries: Mapping[str, Any], data: str | None) -> list[Any]:
    """Lay out demonstrations from local data, or the package's sentences: `kind` is mt, mono or code.

    entries  see parts.demonstration_entries; what is not given is as Kim et al. 2024 have it
    Raises   RecipeError, TaskError, CorpusError
    """
    from dataclasses import fields, replace

    from langslice import demonstrations as laying
    from langslice.evaluation.parallel import read_parallel
    from langslice.options import codes
    from langslice.vocabulary.languages import parse_languages

    names = {field.name for field in fields(laying.Layout)}
    layout = replace(laying.KIM2024, **{name: value for name, value in entries.items() if name in names})
    kind = entries.get("kind", "mt")
    if kind == "code":
        paths = [entries["path"]] if "path" in entries else []
        if not paths:
            raise RecipeError("demonstrations of code need `path`", "a folder of source files, or a jsonl file")
        sources = laying.read_code(paths, text_field=entries.get("text_field", "text"))
        return list(laying.code_demonstrations(sources, layout, condition=entries.get("condition", "code")))
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
        return list(laying.text_demonstrations(lines[languages[0]], languages[0], layout))
    pairs = list(zip(lines[languages[0]], lines[languages[1]], strict=True))
    return list(laying.parallel_demonstrations(pairs, (languages[0], languages[1]), layout))


def measure(
    model: str | Path, entries: Mapping[str, Any], *, revision: str | None = None, report: Report = silent
) -> dict[str, Any]:
    """Measure a model by itself; speed is left to `compare_models`, where models take turns.

    entries  of `evaluate`
    Returns  measurements as JSON, how the model was run, and what it is
    Raises   what langslice.evaluation.main.evaluate raises
    """
    from langslice.evaluation.main import describe, measure_model, refuse_unfit
    from langslice.evaluation.task_registry import prepare

    settings = evaluation_settings(entries)
    checkpoint = open_checkpoint(model, revision=revision)
    prepared = prepare(settings)
    refuse_unfit(prepared, checkpoint, settings)
    found, notes = measure_model(checkpoint, prepared, settings, report, "original")
    return {"measured": [each.to_json() for each in found], "notes": notes, "model": describe(checkpoint)}


def compare_models(
    original: Checkpoint, measured: Mapping[str, Any], model: str | Path | None, entries: Mapping[str, Any],
    *, items: bool = False, report: Report = silent,
) -> dict[str, Any]:  # fmt: skip
    """Measure what was made of a model, and compare; the evaluation as JSON, as `langslice evaluate` writes it.

    measured  what `measure` found of the original
    model     what was made of it; None for the original alone
    items     also, as `measured`, every item of what was made, or of the original, for further paired tests
    """
    from langslice.evaluation.main import describe, measure_model, refuse_unfit, speed_measurements
    from langslice.evaluation.measurement import measurement_from_json
    from langslice.evaluation.results import Evaluation, compare
    from langslice.evaluation.task_registry import prepare

    settings = evaluation_settings(entries)
    checkpoints = {"original": original}
    found = {"original": [measurement_from_json(each) for each in measured["measured"]]}
    prepared = prepare(settings)
    notes: dict[str, Sequence[str]] = {"tasks": list(prepared.notes)} if prepared.notes else {}
    notes["original"] = measured["notes"]
    if model is not None:
        checkpoints["slice"] = open_checkpoint(model)
        refuse_unfit(prepared, checkpoints["slice"], settings)
        found["slice"], notes["slice"] = measure_model(checkpoints["slice"], prepared, settings, report, "slice")
    if prepared.speed:
        report("measuring speed", 0, 0)
        for role, each in speed_measurements(checkpoints, settings).items():
            found[role] += each
    evaluation = Evaluation(
        {role: describe(checkpoint) for role, checkpoint in checkpoints.items()},
        asdict(settings),
        compare(found["original"], found.get("slice"), resamples=settings.resamples, seed=settings.seed),
        notes,
    )
    document = evaluation.to_json()
    if items:
        document["measured"] = [each.to_json() for each in found.get("slice", found["original"])]
    return document


def evaluation_settings(entries: Mapping[str, Any]) -> Any:
    """Options of a recipe's `evaluate`, normalised; `beside` is not of them. Raises TaskError, LanguageError."""
    from langslice.evaluation.settings import make_settings

    return make_settings(**{name: value for name, value in entries.items() if name != "beside"})


def heal_settings(entries: Mapping[str, Any]) -> Any:
    """Options of a recipe's `heal`, checked as far as that needs no model. Raises HealError."""
    return room("langslice.healing.options").settings_from(entries)
