"""The steps that a recipe has: what each reads, which steps it builds on, and what it leaves in the work folder.

count, score, demonstrations   WORK/<part>/<name>      read by name: `$NAME`
features                       WORK/features
measure                        WORK/original.json      measurements of the model as it is
plan                           WORK/plan.json          what to keep, for people to read
slice                          WORK/slice              exactly that, verified before it appears
sparsify                       WORK/sparsified
evaluate                       WORK/evaluation.json    what was made, next to the model
heal, evaluate healed          WORK/healed, WORK/evaluation-healed.json
restore                        WORK/restored
report                         WORK/report.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import RecipeError
from langslice.model.checkpoint import Checkpoint
from langslice.progress import Report
from langslice.recipes.document import Recipe
from langslice.recipes.execution import COMPARING, SUFFIXES, compare_models, make_input, make_model, measure
from langslice.recipes.parts import CUTS, INPUTS, room
from langslice.recipes.references import MODEL, references

PLAN = "plan.json"
REPORT = "report.html"
_FOLDERS = {"slice": "slice", "sparsify": "sparsified", "heal": "healed", "restore": "restored"}


@dataclass(frozen=True)
class StepContext:
    """Where steps work.

    folder  the work folder
    source  the recipe's model, opened; None where no step reads one
    scratch folder for what a killed step goes on from
    """

    folder: Path
    source: Checkpoint | None
    scratch: Path
    report: Report


Make = Callable[[StepContext, Path, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Step:
    """One thing that is done.

    name   such as "slice", "score heads", "evaluate healed"
    part   what the recipe says of it, with references in their places
    out    file or folder below the work folder
    needs  names of the steps whose outputs it reads
    where  path of the part in the recipe, for messages
    make   does it: the place, where to write, and `part` with files in the place of references
    """

    name: str
    part: Mapping[str, Any]
    out: str
    needs: tuple[str, ...]
    where: tuple[str, ...]
    make: Make


def steps_of(recipe: Recipe) -> list[Step]:
    """The steps of a checked recipe, in the order in which they are done."""
    document = recipe.document
    steps = _input_steps(document)
    made = {name: f"{kind} {name}" for kind in INPUTS for name in document.get(kind, {})}
    evaluation = document.get("evaluate")
    if evaluation is not None:
        part = {name: value for name, value in evaluation.items() if name not in (*COMPARING, "beside")}
        steps.append(Step("measure", part, "original.json", (), ("evaluate",), _measure))
    last: str | None = None
    for name in ("plan", *[each for each in document if each in CUTS]):
        if name in document:
            steps += _cut_steps(name, document, made, last)
            last = name if name != "plan" else None
    if evaluation is not None:
        steps.append(_evaluation("evaluate", evaluation, last, "evaluation.json"))
    if "heal" in document:
        needs = _needs(document["heal"], made, last)
        steps.append(Step("heal", document["heal"], _FOLDERS["heal"], needs, ("heal",), _modelled("heal", last)))
        if evaluation is not None:
            steps.append(_evaluation("evaluate healed", evaluation, "heal", "evaluation-healed.json"))
        last = "heal"
    if "restore" in document:
        part = document["restore"]
        steps.append(Step("restore", part, _FOLDERS["restore"], ("heal",), ("restore",), _restore))
    if "report" in document and last is not None:
        kinds = ("measure", "evaluate", "evaluate healed", "features", last)
        needs = tuple(step.name for step in steps if step.name in kinds or step.name.startswith("score "))
        part = {"of": last, "recipe": recipe.text}
        steps.append(Step("report", part, REPORT, needs, ("report",), _reported(recipe, last, steps)))
    return steps


def _input_steps(document: Mapping[str, Any]) -> list[Step]:
    steps = []
    made = {name: f"{kind} {name}" for kind in INPUTS for name in document.get(kind, {})}
    for kind in INPUTS:
        for name, part in document.get(kind, {}).items():
            out = f"{kind}/{name}{SUFFIXES[kind]}"
            steps.append(Step(f"{kind} {name}", part, out, (), (kind, name), _input(kind)))
    if "features" in document:
        part = document["features"]
        steps.append(Step("features", part, "features", _needs(part, made, None), ("features",), _input("features")))
    return steps


def _cut_steps(name: str, document: Mapping[str, Any], made: Mapping[str, str], last: str | None) -> list[Step]:
    """A slice of the model; `slice` of the model itself is two steps, with the plan between them."""
    part = document[name]
    needs = _needs(part, made, last)
    if name == "sparsify":
        data = (document.get("evaluate") or {}).get("data")
        return [Step(name, {**part, "data": data}, _FOLDERS[name], needs, (name,), _modelled(name, last))]
    verify = {"verify": document.get("verify", {})}
    planning = [Step("plan", part, PLAN, needs, (name,), _planned(last))] if "plan" not in part else []
    if name == "plan":
        return planning
    entries = verify if planning else {**part, **verify}
    cutting = Step("slice", entries, _FOLDERS["slice"], ("plan",) if planning else needs, (name,), _sliced(last))
    return [*planning, cutting]


def _needs(part: Any, made: Mapping[str, str], last: str | None) -> tuple[str, ...]:
    named = [made[name] for name in dict.fromkeys(references(part)) if name != MODEL]
    return (*named, *([last] if last else []))


def _evaluation(name: str, part: Mapping[str, Any], last: str | None, out: str) -> Step:
    def make(place: StepContext, path: Path, given: Mapping[str, Any]) -> None:
        beside = given.get("beside") if last is None else place.folder / _FOLDERS[last]
        measured = json.loads((place.folder / "original.json").read_text(encoding="utf-8"))
        entries = {name: value for name, value in given.items() if name != "beside"}
        _save(compare_models(_source(place), measured, beside, entries, report=place.report), path)

    return Step(name, part, out, ("measure", *([last] if last else [])), ("evaluate",), make)


def _input(kind: str) -> Make:
    def make(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
        source = place.source
        if source is None:
            make_input(kind, given, out, model=None, report=place.report)
        else:
            make_input(kind, given, out, model=source.model_id, revision=source.revision, report=place.report)

    return make


def _measure(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
    source = _source(place)
    _save(measure(source.model_id, given, revision=source.revision, report=place.report), out)


def _planned(last: str | None) -> Make:
    def make(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
        from langslice.planning.plan import save_plan
        from langslice.slicing import main as job

        model, revision = _before(place, last)
        made = job.plan(model, report=place.report, **{"revision": revision, **given})
        partial = out.with_name(f"{out.name}.partial")
        save_plan(made, partial)
        partial.replace(out)

    return make


def _sliced(last: str | None) -> Make:
    def make(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
        from langslice.slicing import main as job

        model, revision = _before(place, last)
        entries = {"plan": place.folder / PLAN, "revision": revision, **given}
        verify = entries.pop("verify")
        proven = {"verify": False} if verify is False else verify
        job.slice(model, out, overwrite=True, report=place.report, **proven, **entries)

    return make


def _modelled(name: str, last: str | None) -> Make:
    def make(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
        source = _source(place).folder if last is None else place.folder / _FOLDERS[last]
        entries = {each: value for each, value in given.items() if each != "data"}
        work = place.scratch if name == "sparsify" else None
        make_model(name, entries, source, out, data=given.get("data"), work=work, report=place.report)

    return make


def _restore(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
    restoring = room("langslice.restoration")
    healed = place.folder / _FOLDERS["heal"]
    restoring.restore(healed, out, base=_source(place).folder, overwrite=True, report=place.report, **given)


def _reported(recipe: Recipe, last: str, steps: list[Step]) -> Make:
    """The report of the last model, from everything that was measured on the way."""
    outs = {step.name: step.out for step in steps}

    def make(place: StepContext, out: Path, given: Mapping[str, Any]) -> None:
        from langslice.recipes.equivalent import recipe_text

        results = [place.folder / outs[name] for name in ("evaluate", "evaluate healed") if name in outs]
        scores = [place.folder / path for name, path in outs.items() if name.startswith("score ")]
        # An adapter alone has no tables to show.
        measured = (recipe.document.get("features") or {}).get("demos")
        features = [place.folder / outs["features"]] if measured else []
        out.unlink(missing_ok=True)
        room("langslice.reporting").write_report(
            place.folder / _FOLDERS[last], out, results=results, scores=scores, features=features,
            recipe=recipe.text or recipe_text(recipe.document),
            command=f"langslice run {recipe.place} -o {place.folder}" if recipe.text else None,
        )  # fmt: skip

    return make


def _before(place: StepContext, last: str | None) -> tuple[str | Path, str | None]:
    """The model before a step, with its revision: by the name that the recipe gives, so that records carry it."""
    source = _source(place)
    return (source.model_id, source.revision) if last is None else (place.folder / _FOLDERS[last], None)


def _source(place: StepContext) -> Checkpoint:
    if place.source is None:
        raise RecipeError("`model` is missing", "a folder, a model on the hub, or mini")
    return place.source


def _save(document: Mapping[str, Any], path: Path) -> None:
    """Write JSON under its name when it is whole; measurements may hold not-a-number, where there was nothing to count."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
