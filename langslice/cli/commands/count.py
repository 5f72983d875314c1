"""`langslice count`: text in, the number of times that each token occurs in it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import USED, Model, Quiet, ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe, progress, refuse_existing
from langslice.slicing.options import CountOptions


@choosing(CountOptions)
def count(
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Parquet file to write.", show_default=False, rich_help_panel=USED)
    ],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing counts.", rich_help_panel="Output")
    ] = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Count the tokens of a corpus, for plans to reuse."""
    from langslice.slicing import main as job

    if show_recipe:
        print_recipe("count", model, given, name=out)
        return
    refuse_existing(out, overwrite)
    with progress(quiet) as report:
        counted = job.count(model, report=report, **given)
    counted.save(out)
    if not quiet:
        from langslice.cli.console import print_counts

        print_counts(counted, out)
