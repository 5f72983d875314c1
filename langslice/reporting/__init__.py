"""The report of a slice: one HTML file and a model card, two views of the same data.

`data.py` is the tree, `slice_folder.py` and `measurements.py` fill it, `page.py` and `card.py` show it. Charts are inline SVG and
HTML of our own: a plotting library in JavaScript would add three to four megabytes to every file, draw nothing without a
script, and hide the numbers from screen readers and from paper.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from langslice.errors import ReportError
from langslice.options import taking
from langslice.reporting.options import ReportOptions

if TYPE_CHECKING:
    from langslice.planning.plan import SlicePlan
    from langslice.reporting.data import Report

__all__ = ["collect_report"]

# By which a report that may be replaced is told from a page that somebody else put there.
_OURS = b'<meta name="generator" content="langslice '


@taking(ReportOptions)
def write_report(
    folder: str | Path, out: str | Path | None = None, *, options: ReportOptions, overwrite: bool = False
) -> Path:
    """Write the report of a slice as one self-contained HTML file, and bring its model card up to date.

    folder     a slice
    out        the file to write; report.html in the folder unless given
    options    see ReportOptions; `recipe` is a file or a text; hashes read every file of the slice
    overwrite  replace a file at `out` that is no report of langslice
    Returns    the file
    Raises     PlanError when the folder is no slice; ReportError; OutputError
    """
    from langslice.reporting.card import write_card
    from langslice.reporting.page import page
    from langslice.reporting.slice_folder import REPORT, with_hashes

    folder = Path(folder)
    path = folder / REPORT if out is None else Path(out)
    if out is not None or folder.is_dir():
        _refuse_other(path, overwrite)
    report = collect_report(
        folder, results=_several(options.results), scores=_several(options.scores),
        features=_several(options.features), recipe=options.recipe, command=options.command,
    )  # fmt: skip
    if options.card and os.access(folder, os.W_OK):
        write_card(folder, report)
    text = page(with_hashes(report, folder) if options.hashes else report)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def collect_report(
    folder: str | Path,
    *,
    results: Sequence[str | Path] = (),
    scores: Sequence[str | Path] = (),
    features: Sequence[str | Path] = (),
    recipe: str | Path | None = None,
    command: str | Sequence[str] | None = None,
    hashes: bool = False,
) -> Report:
    """Everything that is known of a slice, as data; the arguments are those of ReportOptions."""
    from langslice.reporting.examples import with_examples
    from langslice.reporting.measurements import read_features, read_healing, read_results, read_scores
    from langslice.reporting.slice_folder import open_slice, with_hashes

    folder = Path(folder)
    report, plan, head = open_slice(folder)
    report = with_examples(report, folder, plan)
    report = replace(
        report,
        results=tuple(read_results(Path(path), report) for path in _several(results)),
        scores=tuple(one for path in _several(scores) for one in read_scores(Path(path), report)),
        features=next((read_features(Path(path)) for path in _several(features)), None),
        healing=read_healing(folder, head.get("healed")),
        origin=replace(
            report.origin,
            recipe=None if recipe is None else _recipe_text(recipe),
            command=report.origin.command if command is None else _words(command),
        ),
    )
    if hashes:
        report = with_hashes(report, folder)
    return replace(report, unmeasured=tuple(_unmeasured(report, plan)))


def _several(given: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [given] if isinstance(given, str | Path) else given


def _words(command: str | Sequence[str]) -> tuple[str, ...]:
    import shlex

    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def _recipe_text(recipe: str | Path) -> str:
    """The text of a recipe: a Path is read, and so is the name of a file; other text is the recipe."""
    if isinstance(recipe, str) and ("\n" in recipe or not Path(recipe).is_file()):
        return recipe
    try:
        return Path(recipe).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{recipe} is not readable as a recipe: {error}") from error


def _unmeasured(report: Report, plan: SlicePlan) -> list[tuple[str, str]]:
    """What a reader would look for and not find, and the command that measures it."""
    name, model = report.name, report.source.model
    found: list[tuple[str, str]] = []
    if report.checks is None:
        found.append(("verification", f"langslice verify {model} {name}"))
    if not any(results.scores for results in report.results):
        found.append(("quality by language", f"langslice evaluate {model} {name} -o results.json"))
    if not any(one.task == "speed" for results in report.results for one in results.speed):
        found.append(("speed and memory", f"langslice evaluate {model} {name} --tasks speed -o speed.json"))
    if report.stacks and not report.scores:
        found.append(("scores of layers, heads and neurons", f"langslice score {model} heads -m l2 -o heads.parquet"))
    if report.vocabulary is not None and not plan.facts.get("scripts"):
        found.append(
            ("tokens by script, coverage: this record was written before they were", f"langslice slice {model}")
        )
    return found


def _refuse_other(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that is no report, and a place that is no folder."""
    from langslice.errors import OutputError

    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", hint="make it first")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint="name a file, such as report.html")
    if path.exists() and not overwrite:
        with path.open("rb") as file:
            if _OURS not in file.read(4096):
                raise OutputError(
                    f"{path} exists already, and is no report of langslice",
                    hint="choose another name, or pass --overwrite",
                )
