"""`langslice sweep`: a recipe in, a table and plots out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import USED, choosing
from langslice.cli.commands.output import print_json, progress
from langslice.sweeps.options import SweepOptions

if TYPE_CHECKING:
    from langslice.sweeps.result import Sweep


def _print_schema(asked: bool) -> None:
    if asked:
        from langslice.recipes.schema import recipe_schema

        print_json(recipe_schema(sweep=True))
        raise typer.Exit


@choosing(SweepOptions)
def sweep(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; every list in it spans an axis.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.", show_default=False, rich_help_panel=USED)],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, print its runs and exit.", rich_help_panel="Run")
    ] = False,
    show_recipe: Annotated[
        bool,
        typer.Option("--show-recipe", help="Print the equivalent recipe of each run and exit.", rich_help_panel="Run"),
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON schema of sweeps and exit.",
            rich_help_panel="Run",
            is_eager=True,
            callback=_print_schema,
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no table.", rich_help_panel="Run")
    ] = False,
    **given: Any,
) -> None:
    """Slice and evaluate a model in many ways.

    Finished runs are kept, and an interrupted sweep resumes.
    """
    from langslice.errors import RecipeError
    from langslice.sweeps.main import sweep as run
    from langslice.sweeps.recipe import expand, load_grid

    if show_recipe:
        from langslice.recipes.equivalent import recipe_text

        runs = expand(load_grid(recipe))
        typer.echo("---\n".join(f"# {found.name}\n{recipe_text(found.recipe)}" for found in runs), nl=False)
        return
    if dry_run:
        for found in expand(load_grid(recipe)):
            typer.echo(found.name)
        return
    with progress(quiet) as report:
        done = run(recipe, out, report=report, **given)
    if not quiet:
        print_sweep(done)
    if done.failed:
        raise RecipeError(
            f"{len(done.failed)} of {len(done.runs)} runs failed\n"
            + "\n".join(f"  {each.run.name}: {_first_line(each.error)}" for each in done.failed[:5]),
            f"logs are below {out}; the same command runs only what is missing",
        )


def _first_line(error: str) -> str:
    """What an error says: of a traceback the end."""
    lines = error.strip().splitlines() or [""]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def print_sweep(done: Sweep) -> None:
    """One row for each run, one column for each score."""
    from rich.table import Table

    from langslice.formatting import stdout_console
    from langslice.sweeps.summary import axis_names, table_rows

    console = stdout_console()
    axes = axis_names(done)
    rows = list(table_rows(done))
    scores = list(dict.fromkeys((row["task"], row["language"], row["metric"]) for row in rows))
    by_run: dict[tuple[str, ...], dict[tuple[str, str, str], Any]] = {}
    for row in rows:
        place = by_run.setdefault(tuple(row[name] for name in axes), {})
        place[row["task"], row["language"], row["metric"]] = row["value"]
    table = Table("score", *[", ".join(filter(None, values)) or "all" for values in by_run], box=None)
    if len(by_run) > 6:
        table = Table(*axes, *["\n".join(filter(None, score)) for score in scores], box=None)
        for values, found in by_run.items():
            table.add_row(*values, *[_cell(found.get(score), score[2]) for score in scores])
    else:
        for score in scores:
            table.add_row(
                " ".join(filter(None, score)), *[_cell(found.get(score), score[2]) for found in by_run.values()]
            )
    console.print(table)
    reused = sum(run.reused for run in done.runs)
    console.print(f"{len(done.runs)} runs, {reused} of them kept from before", highlight=False)
    console.print(f"written: {', '.join(map(str, done.tables))}, {len(done.plots)} plots", highlight=False)


def _cell(value: float | None, metric: str) -> str:
    from langslice.evaluation.tables import number_text

    return "–" if value is None else number_text(value, metric)
