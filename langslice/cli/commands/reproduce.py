"""`langslice reproduce`: a paper's name in, its tables out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import USED, choosing
from langslice.cli.commands.output import progress
from langslice.reproduction.options import ReproduceOptions

if TYPE_CHECKING:
    from langslice.reproduction.tables import Reproduction


@choosing(ReproduceOptions)
def reproduce(
    paper: Annotated[
        str, typer.Argument(metavar="PAPER", help="kim2024 (arXiv 2409.16911) or kimkim2026 (2604.16235).")
    ],
    model: Annotated[
        str, typer.Option("--model", help="A local folder, a model on the hub, or `mini`.", rich_help_panel=USED)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.", show_default=False, rich_help_panel=USED)],
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no tables.", rich_help_panel="Run")
    ] = False,
    **given: Any,
) -> None:
    """Run a paper's experiment on a model.

    The output lists what could not be obtained.
    """
    from langslice.errors import RecipeError
    from langslice.reproduction.main import reproduce as run

    with progress(quiet) as report:
        found = run(paper, model, out, report=report, **given)
    if not quiet:
        print_reproduction(found, out)
    if found.sweep.failed:
        raise RecipeError(
            f"{len(found.sweep.failed)} of {len(found.sweep.runs)} conditions failed", f"logs are below {out}"
        )


def print_reproduction(found: Reproduction, out: Path) -> None:
    """Every table, then what a reader must know."""
    from rich.markup import escape
    from rich.table import Column, Table

    from langslice.formatting import stdout_console

    console = stdout_console()
    for sheet in found.sheets:
        table = Table("", *[Column(name, justify="right") for name in sheet.columns], box=None, title=sheet.title,
                      title_justify="left")  # fmt: skip
        for name, cells in sheet.rows:
            table.add_row(name, *cells)
        console.print(table)
        console.print()
    console.print("* differs from the whole model, p < 0.05 by the paired bootstrap", highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    console.print(f"written: {out / 'report.md'}", highlight=False)
