"""`langslice init`: a model, or what one is for, and languages in, a first recipe with comments out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Overwrite, Quiet, choosing, option
from langslice.cli.commands.output import progress, refuse_existing
from langslice.recipes.options import InitOptions


@choosing(InitOptions)
def init(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A local folder, a model on the hub, or `mini`. Default: what is proposed for --for.",
        ),
    ] = None,
    out: Annotated[Path | None, option("--out", "-o", help="File to write. Default: stdout.", metavar="FILE")] = None,
    *,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Write a first recipe for a model, with comments."""
    from langslice.recipes.draft import draft

    if out is not None:
        refuse_existing(out, overwrite)
    with progress(quiet) as report:
        text = draft(model, report=report, **given)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    if not quiet:
        typer.echo(f"{out} written. Next: langslice run {out} -o WORK", err=True)
