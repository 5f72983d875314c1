"""`langslice export`: a slice in the format of another program."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Out, Overwrite, Quiet, choosing
from langslice.cli.commands.output import progress
from langslice.formats.options import ExportOptions


@choosing(ExportOptions)
def export(
    folder: Annotated[str, typer.Argument(metavar="OUT", help="Folder of a slice, or of any model.")],
    out: Out,
    *,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Write a slice as GGUF, ONNX or a draft's head, verified."""
    from langslice.formats.main import export as job
    from langslice.formatting import bytes_text

    with progress(quiet) as report:
        done = job(folder, out, overwrite=overwrite, report=report, **given)
    if quiet:
        return
    for name, size in done.files.items():
        typer.echo(f"{done.out / name}  {bytes_text(size)}")
    for check in done.checks:
        mark = {True: "ok", False: "differs", None: "--"}[check.passed]
        typer.echo(f"{mark:<8}{check.name}: {check.detail}", err=True)
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
