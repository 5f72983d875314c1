"""`langslice inspect`: what is in a model, and what each cut would save."""

from __future__ import annotations

from typing import Annotated, Any

from langslice.cli.commands.options import Json, Model, Quiet, Source, choosing, option
from langslice.cli.commands.output import print_json, progress


@choosing(Source)
def inspect(
    model: Model,
    languages: Annotated[
        list[str] | None,
        option(
            "--languages", "-l", help="A set to compute instead of the common ones; may be repeated.", metavar="CODES"
        ),
    ] = None,
    json: Json = False,
    *,
    quiet: Quiet = False,
    **source: Any,
) -> None:
    """Show what is in a model, and what each cut would save."""
    from langslice.slicing import main as job

    with progress(quiet or json) as report:
        found = job.inspect(model, languages=languages or (), report=report, **source)
    if json:
        print_json(found.to_json())
    else:
        from langslice.cli.console import print_inspection

        print_inspection(found)
