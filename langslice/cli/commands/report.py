"""`langslice report`: a slice and what was measured of it, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langslice.cli.commands.options import option as _option


def report(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `langslice slice` made.")],
    out: Annotated[
        Path | None,
        _option("--out", "-o", help="File to write; report.html in the folder unless given.", metavar="FILE"),
    ] = None,
    results: Annotated[
        list[str] | None,
        _option("--results", "-r", help="Results of `langslice evaluate`; may be repeated.", metavar="FILE"),
    ] = None,
    scores: Annotated[
        list[str] | None,
        _option("--scores", "-s", help="Scores of `langslice score`; may be repeated.", metavar="FILE"),
    ] = None,
    features: Annotated[
        Path | None, _option("--features", "-f", help="Folder that `langslice features` wrote.", metavar="DIR")
    ] = None,
    recipe: Annotated[Path | None, _option("--recipe", help="Recipe by which it was made.", metavar="FILE")] = None,
    hashes: Annotated[bool, typer.Option("--hashes/--no-hashes", help="sha256 of every file of the slice.")] = True,
    card: Annotated[
        bool, typer.Option("--card/--no-card", help="Refresh README.md too, unless a person edited it.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the data as JSON, and write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is no report.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
) -> None:
    """Write what was cut, what it cost and how it was proven as one HTML file, and refresh the model card."""
    from langslice.reporting import collect_report, write_report

    given = [features] if features is not None else []
    if json:
        import json as writer

        found = collect_report(
            folder, results=results or (), scores=scores or (), features=given, recipe=recipe, hashes=hashes
        )
        typer.echo(writer.dumps(found.to_json(), ensure_ascii=True, indent=1))
        return
    path = write_report(
        folder, out, results=results or (), scores=scores or (), features=given, recipe=recipe, hashes=hashes, card=card,
        overwrite=overwrite,
    )  # fmt: skip
    if not quiet:
        from langslice.formatting import bytes_text
        from langslice.reporting.card import card_edited
        from langslice.reporting.source_card import CARD

        typer.echo(f"{path}: {bytes_text(path.stat().st_size)}, opens in any browser", err=True)
        if card and (folder / CARD).is_file():
            edited = card_edited(folder / CARD)
            typer.echo(f"{folder / CARD}: {'left as it was edited' if edited else 'refreshed'}", err=True)
