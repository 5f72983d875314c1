"""`langslice restore`: a trained slice and its base in, the full model out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import Out, Overwrite, Quiet, choosing
from langslice.restoration.options import RestoreOptions

if TYPE_CHECKING:
    from langslice.restoration import RestoreResult


@choosing(RestoreOptions)
def restore(
    healed: Annotated[str, typer.Argument(metavar="HEALED", help="A slice, trained since.")],
    out: Out,
    *,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Put the trained rows of a slice back into the full model."""
    from langslice.cli.commands.output import progress
    from langslice.restoration import restore as run

    with progress(quiet) as report:
        result = run(healed, out, overwrite=overwrite, report=report, **given)
    if not quiet:
        print_restored(result)


def print_restored(result: RestoreResult) -> None:
    """What came from where, and the proof."""
    from dataclasses import replace

    from langslice.cli.console import print_verification
    from langslice.formatting import bytes_text, stdout_console

    console = stdout_console()
    kept, rows = result.rows
    console.print(f"{result.out}", highlight=False, style="bold")
    console.print(f"tokens     {kept:,} trained of {rows:,}", highlight=False)
    tensors = result.tensors
    console.print(
        f"tensors    {tensors['trained']} from the slice, {tensors['merged']} merged row by row, {tensors['base']} from "
        f"the base; {bytes_text(result.written.size_bytes)}",
        highlight=False,
    )
    if result.verification is not None:
        print_verification(
            replace(result.verification, texts=())
        )  # what became of other languages is the slice's affair
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
