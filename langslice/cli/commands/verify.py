"""`langslice verify`: a slice beside the model that it was cut from; exit code 1 when they differ where they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Json, Model, Quiet, choosing
from langslice.cli.commands.output import print_json, progress
from langslice.slicing.options import VerifyOptions


@choosing(VerifyOptions)
def verify(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a slice.")],
    json: Json = False,
    *,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Verify a slice against the model that it was made from.

    The exit code is 1 if they differ.
    """
    from langslice.slicing import main as job

    with progress(quiet or json) as report:
        verification = job.verify(model, out, report=report, **given)
    from langslice.cli.console import print_verification, print_warnings

    if json:
        print_json(verification.to_json())
    elif not quiet:
        print_verification(verification)
    print_warnings(verification)
    if not verification.passed:
        raise typer.Exit(code=1)
