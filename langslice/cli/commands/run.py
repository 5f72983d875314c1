"""`langslice run`: a recipe in, everything that it asks for out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langslice.cli.commands.options import USED, Quiet
from langslice.cli.commands.output import print_json, progress

if TYPE_CHECKING:
    from langslice.recipes.main import RunResult


def _print_schema(asked: bool) -> None:
    if asked:
        from langslice.recipes.schema import recipe_schema

        print_json(recipe_schema())
        raise typer.Exit


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; `langslice init` writes a first one.")],
    work: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Work folder. An interrupted run resumes in it.",
            show_default=False,
            rich_help_panel=USED,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, print its steps and exit.", rich_help_panel="Run")
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON schema of recipes and exit.",
            rich_help_panel="Run",
            is_eager=True,
            callback=_print_schema,
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Do everything that a recipe asks for.

    Outputs that are up to date are kept.
    """
    from langslice.recipes.main import preview
    from langslice.recipes.main import run as work_through

    if dry_run:
        print_steps(preview(recipe, work), todo="to do")
        return
    with progress(quiet) as report:
        done = work_through(recipe, work, report=report)
    if not quiet:
        print_steps(done, todo="done")
        print_results(done)


def print_steps(done: RunResult, *, todo: str) -> None:
    """One row for each step: whether it was kept, how long it took, and its output."""
    from rich.table import Table

    from langslice.cli.console import _right
    from langslice.formatting import stdout_console

    console = stdout_console()
    table = Table("step", "", *_right("seconds"), "output", box=None)
    for step in done.steps:
        seconds = "" if step.seconds is None else f"{step.seconds:.1f}"
        table.add_row(step.name, "kept" if step.kept else todo, seconds, str(step.path))
    console.print(table)
    for path in done.left:
        console.print(f"note: {path} is of an earlier recipe", highlight=False, markup=False, soft_wrap=True)


def print_results(done: RunResult) -> None:
    """What was verified, the tables of the evaluations, then the page."""
    import json

    from langslice.evaluation.results import evaluation_from_json
    from langslice.evaluation.tables import print_evaluation
    from langslice.formatting import stdout_console

    console = stdout_console()
    for step in done.steps:
        if step.name == "slice":
            console.print(
                f"\nverification of {step.path}: {_verification_text(step.path)}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    for path in done.results:
        console.print(f"\n[bold]{path.name}[/]", highlight=False)
        print_evaluation(evaluation_from_json(json.loads(path.read_text(encoding="utf-8"))))
    if done.report is not None:
        console.print(f"report: {done.report}", highlight=False, markup=False, soft_wrap=True)


def _verification_text(folder: Path) -> str:
    """What slice.json says of verification: `equal in tensors, bytes, outputs`."""
    import json

    verification = json.loads((folder / "slice.json").read_text(encoding="utf-8")).get("proof")
    if verification is None:
        return "none was asked for"
    checks = verification["checks"]
    equal = [check["name"] for check in checks if check["passed"]]
    open_ones = [f"{check['name']} ({check['detail']})" for check in checks if check["passed"] is None]
    warnings = "".join(f"\nWARNING {check['warning']}" for check in checks if check.get("warning"))
    return f"equal in {', '.join(equal)}" + (f"; not checked: {', '.join(open_ones)}" if open_ones else "") + warnings
