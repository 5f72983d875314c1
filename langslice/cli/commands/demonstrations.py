"""`langslice demonstrations`: make the short texts that weight pruning and feature analysis look at a model with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import USED, ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe
from langslice.demonstrations.options import DemonstrationOptions


@choosing(DemonstrationOptions)
def demonstrations(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="jsonl file to write.", show_default=False, rich_help_panel=USED)
    ],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel="Output")
    ] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary.", rich_help_panel="Run")] = False,
    **given: Any,
) -> None:
    """Make calibration data for weight pruning and features."""
    if show_recipe:
        print_recipe("demonstrations", None, given, name=out)
        return
    from langslice.demonstrations.main import make_demonstrations

    made = make_demonstrations(out, overwrite=overwrite, **given)
    if not quiet:
        typer.echo(f"{out}: {len(made)} demonstrations, {made[0].condition}", err=True)
