"""`langslice report`: a slice and what was measured of it, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import choosing, option
from langslice.reporting.options import ReportOptions


@choosing(ReportOptions)
def report(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a slice.")],
    out: Annotated[
        Path | None,
        option("--out", "-o", help="File to write. Default: report.html in the folder.", metavar="FILE"),
    ] = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Print the data as JSON and exit.", rich_help_panel="Run")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is no report.", rich_help_panel="Output")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary.", rich_help_panel="Run")] = False,
    **given: Any,
) -> None:
    """Write an HTML report of a slice, and update its card."""
    from langslice.reporting import collect_report, write_report

    if json:
        import json as writer

        asked = {name: value for name, value in given.items() if name != "card"}
        found = collect_report(folder, **{"hashes": True, **asked})
        typer.echo(writer.dumps(found.to_json(), ensure_ascii=True, indent=1))
        return
    path = write_report(folder, out, overwrite=overwrite, **given)
    if not quiet:
        from langslice.formatting import bytes_text
        from langslice.reporting.card import card_edited
        from langslice.reporting.source_card import CARD

        typer.echo(f"{path}: {bytes_text(path.stat().st_size)}, opens in any browser", err=True)
        if given.get("card", True) and (folder / CARD).is_file():
            edited = card_edited(folder / CARD)
            typer.echo(f"{folder / CARD}: {'left as it was edited' if edited else 'refreshed'}", err=True)
