"""A paper's experiment, run again: its conditions, its tables, and the paper's own figures next to ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from langslice.demonstrations.demonstration import EOS
from langslice.errors import RecipeError
from langslice.options import taking
from langslice.options.choice import codes
from langslice.progress import Report, silent
from langslice.reproduction import kim2024, kimkim2026
from langslice.reproduction.options import ReproduceOptions
from langslice.reproduction.published import FORM, beside_published, read_published, write_form
from langslice.reproduction.tables import Reproduction

PAPERS: Final = ("kim2024", "kimkim2026")


@taking(ReproduceOptions)
def reproduce(
    paper: str, model: str | Path, out: str | Path, *, options: ReproduceOptions, report: Report = silent
) -> Reproduction:
    """Run a paper's experiment again on a model; what could not be obtained is left out and named.

    paper    kim2024 (arXiv 2409.16911) or kimkim2026 (2604.16235)
    model    a folder, a model on the hub, or `mini`, small and offline
    out      folder of the results; report.md holds the tables
    options  see ReproduceOptions
    Returns  tables, notes, and every run; those that failed carry their error
    Raises   RecipeError, also when every condition failed; TaskError for data that is missing
    """
    if paper not in PAPERS:
        raise RecipeError(f"unknown paper {paper!r}", f"one of {', '.join(PAPERS)}")
    out, titles = Path(out), _titles(paper)
    _refuse_foreign(paper, options)
    figures = None if options.published is None else read_published(Path(options.published), *titles)
    found = _run(paper, str(model), out, options, report)
    if len(found.sweep.failed) == len(found.sweep.runs):
        reason = found.sweep.failed[0].error.strip()
        raise RecipeError(f"every condition failed; the first of them:\n  {reason}", f"logs are below {out}")
    write_form(out / FORM, [sheet for sheet in found.sheets if sheet.title in titles[0]])
    if figures is not None:
        sheets, notes = beside_published(found.sheets, figures)
        found = replace(found, sheets=sheets, notes=(*found.notes, *notes))
    found.save(out / "report.md")
    return found


def _refuse_foreign(paper: str, options: ReproduceOptions) -> None:
    """Refuse what only the other paper reads."""
    if paper == "kim2024":
        if options.rounds is not None:
            raise RecipeError("kim2024 does not read --rounds", "it measures no speed; leave it out")
        return
    names = ("xnli", "marc", "code", "ray", "processes", "languages", "sparsities", "seeds", "prompts", "separator")
    given = [f"--{name}" for name in names if name in options.given()]
    if given:
        raise RecipeError(f"kimkim2026 does not read {', '.join(given)}", "these belong to kim2024; leave them out")


def _run(paper: str, model: str, out: Path, options: ReproduceOptions, report: Report) -> Reproduction:
    names = ("flores", "data") if paper == "kimkim2026" else ("flores", "data", "xnli", "marc", "code")
    folders = {name: None if getattr(options, name) is None else Path(getattr(options, name)) for name in names}
    known, tasks = (kimkim2026 if paper == "kimkim2026" else kim2024).TASKS, codes(options.tasks)
    if foreign := [name for name in tasks if name not in known]:
        raise RecipeError(f"{paper} has no task {', '.join(foreign)}", f"its tasks are {', '.join(known)}")
    shared: dict[str, Any] = {
        **folders, "limit": options.limit, "new_tokens": options.new_tokens,
        "tasks": tasks or known, "device": options.device, "report": report,
    }  # fmt: skip
    if paper == "kimkim2026":
        return kimkim2026.kimkim2026(model, out, rounds=options.rounds or kimkim2026.ROUNDS, **shared)
    return kim2024.kim2024(model, out, processes=options.processes, ray=options.ray, **_grid(options), **shared)


def _grid(options: ReproduceOptions) -> dict[str, Any]:
    """What kim2024 varies; what was not given is as the paper has it."""
    given: dict[str, Any] = {
        "languages": codes(options.languages), "sparsities": tuple(map(_sparsity, codes(options.sparsities))),
        "seeds": tuple(range(options.seeds or 0)), "prompts": options.prompts,
        "separator": None if options.separator is None else _separator(options.separator),
    }  # fmt: skip
    return {name: value for name, value in given.items() if value}


def _separator(text: str) -> str:
    """As an evaluation takes it: a line end, typed in a shell, arrives as a backslash and an n."""
    if text == EOS:
        return "eos"
    if not text or EOS in text:
        raise RecipeError(f"--separator: {text!r} is neither {EOS} nor text without it", "such as {eos} or \\n")
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _sparsity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise RecipeError(f"--sparsities: {text!r} is no share between 0 and 1", "such as 0.3,0.5")
    return value


def _titles(paper: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Titles of a paper's tables, and its conditions."""
    if paper == "kim2024":
        return tuple(kim2024.TABLES), kim2024.CONDITIONS
    return (kimkim2026.SIZES, *kimkim2026.TABLES), tuple(kimkim2026.CONDITIONS)
