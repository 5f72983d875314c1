"""`langslice tradeoff`: what smaller vocabularies cost, as a table, a file and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import USED, Json, Model, Quiet, choosing
from langslice.cli.commands.output import print_json, progress, refuse_existing
from langslice.tradeoffs.options import TradeoffOptions


@choosing(TradeoffOptions)
def tradeoff(
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="JSON file to write; an SVG picture is written next to it.",
            show_default=False,
            rich_help_panel=USED,
        ),
    ],
    *,
    json: Json = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing result.", rich_help_panel="Output")
    ] = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Measure what smaller vocabularies cost, writing none."""
    from langslice.tradeoffs.main import tradeoff as run
    from langslice.tradeoffs.picture import picture

    svg = out.with_suffix(".svg")
    for path in (out, svg):
        refuse_existing(path, overwrite)
    with progress(quiet or json) as report:
        found = run(model, report=report, **given)
    found.save(out)
    svg.write_text(picture(found), encoding="utf-8")
    if json:
        print_json(found.to_json())
    elif not quiet:
        from langslice.tradeoffs.table import print_tradeoff

        print_tradeoff(found)
