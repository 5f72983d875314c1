"""`langslice inspect`: what is in a model, and what each cut would save."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Json, ModelOrGguf, Quiet, choosing
from langslice.cli.commands.output import print_json, progress
from langslice.slicing.options import InspectOptions


@choosing(InspectOptions)
def inspect(
    model: ModelOrGguf,
    json: Json = False,
    *,
    row: Annotated[
        bool,
        typer.Option(
            "--row", help="Print the row of the model type for model/families.py and exit.", rich_help_panel="Run"
        ),
    ] = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Show what is in a model, and what each slice would save."""
    from langslice.slicing import main as job

    if row:
        given.pop("languages", None)
        typer.echo(job.model_row(model, **given))
        return
    with progress(quiet or json) as report:
        found = job.inspect(model, report=report, **given)
    if json:
        print_json(found.to_json())
    else:
        from langslice.cli.console import print_inspection

        print_inspection(found)
