"""The flow of a sweep: expand the recipe, measure each model as it is once, then every slice next to it, then tabulate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from langslice.files.folder_lock import locked
from langslice.options import taking
from langslice.progress import Report, silent
from langslice.recipes.content import digest
from langslice.sweeps.options import SweepOptions
from langslice.sweeps.recipe import SweepRun, expand, load_grid
from langslice.sweeps.result import Finished, Sweep
from langslice.sweeps.scheduler import RESULT, Job, failures, run_in_processes, run_on_ray
from langslice.sweeps.summary import write_summary

RUNS: Final = "runs"


@taking(SweepOptions)
def sweep(
    recipe: str | Path | Mapping[str, Any], out: str | Path, *, options: SweepOptions, report: Report = silent
) -> Sweep:
    """Do every run of a recipe that has no result yet, and tabulate all.

    recipe     a file, or its content
    out        folder of the results; a sweep that was interrupted goes on there, and finished runs of the same content
               are not run again
    options    see SweepOptions
    Returns    every run; those that failed carry their error
    Raises     RecipeError before anything runs
    """
    processes, ray = options.processes, options.ray
    runs = expand(load_grid(recipe))
    folder = Path(out)
    with locked(folder, "sweep"):
        originals = {_original_key(run): _original(run) for run in runs}
        _perform(originals, folder / RUNS, processes, ray, report, "models as they are")
        broken = failures(list(originals), folder / RUNS)
        keys = [_key(run) for run in runs]
        reused = {key for key in keys if (folder / RUNS / key / RESULT).exists()}
        ready = {
            key: {**run.recipe, "original": _read(folder / RUNS / _original_key(run))}
            for key, run in zip(keys, runs, strict=True)
            if _original_key(run) not in broken
        }
        _perform(ready, folder / RUNS, processes, ray, report, "runs")
        errors = failures(keys, folder / RUNS)
        found = tuple(
            Finished(
                run, key, None if key in errors else _read(folder / RUNS / key),
                broken.get(_original_key(run), errors.get(key, "")), key in reused,
            )
            for key, run in zip(keys, runs, strict=True)
        )  # fmt: skip
        return write_summary(Sweep(folder, found))


def _original(run: SweepRun) -> dict[str, Any]:
    """The job that measures a run's model as it is."""
    return {name: value for name, value in run.recipe.items() if name in ("model", "revision", "evaluate")}


def _original_key(run: SweepRun) -> str:
    return f"model-{digest(_original(run))}"


def _key(run: SweepRun) -> str:
    # The digest sorts entries, and the order of the steps matters.
    return digest({"recipe": run.recipe, "steps": list(run.steps)})


def _absolute(value: Any) -> Any:
    """Relative paths as absolute ones: a worker of a cluster works elsewhere."""
    if isinstance(value, dict):
        return {name: _absolute(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    return str(Path(value).resolve()) if isinstance(value, str) and "/" in value and Path(value).exists() else value


def _perform(jobs: Mapping[str, Job], folder: Path, processes: int, ray: str | None, report: Report, what: str) -> None:
    missing = {key: job for key, job in jobs.items() if not (folder / key / RESULT).exists()}
    if not missing:
        return
    ended = len(jobs) - len(missing)

    def done(_: str) -> None:
        nonlocal ended
        ended += 1
        report(f"{what}: {ended} of {len(jobs)}", ended, len(jobs))

    report(f"{what}: {ended} of {len(jobs)}", ended, len(jobs))
    if ray is not None:
        run_on_ray(
            {key: _absolute(dict(job)) for key, job in missing.items()},
            folder,
            address=ray,
            processes=processes,
            done=done,
        )
    else:
        run_in_processes(missing, folder, processes=processes, done=done)


def _read(place: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place / RESULT).read_text(encoding="utf-8"))
    return document
