"""`langslice plan`: a choice in, a file out that says what becomes of every token and tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import USED, Model, Quiet, ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe, progress, refuse_existing
from langslice.planning.options import PlanOptions


@choosing(PlanOptions)
def plan(
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Plan file to write.", show_default=False, rich_help_panel=USED)
    ],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing plan.", rich_help_panel="Output")
    ] = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Choose what to keep, and write it as a plan to edit."""
    if show_recipe:
        print_recipe("plan", model, given)
        return
    from langslice.planning.plan import save_plan
    from langslice.slicing import main as job

    refuse_existing(out, overwrite)
    with progress(quiet) as report:
        made = job.plan(model, report=report, **given)
    save_plan(made, out)
    if not quiet:
        from langslice.cli.console import print_plan

        print_plan(made, out)
