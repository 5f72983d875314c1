"""`langslice demonstrations`: make the short texts that weight pruning and feature analysis look at a model with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe
from langslice.demonstrations.options import DemonstrationOptions


@choosing(DemonstrationOptions)
def demonstrations(
    out: Annotated[Path, typer.Option("--out", "-o", help="jsonl file to write.", show_default=False)],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    **given: Any,
) -> None:
    """Lay out text as demonstrations, for pruning weights and finding features."""
    if show_recipe:
        print_recipe("demonstrations", None, given, name=out)
        return
    from langslice.demonstrations.main import make_demonstrations

    made = make_demonstrations(out, overwrite=overwrite, **given)
    if not quiet:
        typer.echo(f"{out}: {len(made)} demonstrations, {made[0].condition}", err=True)
