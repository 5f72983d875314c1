"""`langslice score`: what each layer, head, neuron or expert is worth, as a table, a file and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import USED, Model, ShowRecipe, choosing, option
from langslice.cli.commands.output import print_recipe, progress, refuse_existing
from langslice.scoring.options import ScoreOptions

if TYPE_CHECKING:
    from langslice.scoring import Scores


# Experts of a layer that are listed one by one.
_LISTED = 16


@choosing(ScoreOptions)
def score(
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Parquet file to write.", show_default=False, rich_help_panel=USED)
    ],
    *,
    picture: Annotated[
        Path | None,
        option(
            "--picture",
            help="PNG file to draw. Default: next to the parquet file, if matplotlib is installed.",
            metavar="FILE",
            panel="Output",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing scores.", rich_help_panel="Output")
    ] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no table.", rich_help_panel="Run")
    ] = False,
    **given: Any,
) -> None:
    """Score layers, heads, neurons or experts, to slice by."""
    if show_recipe:
        print_recipe("score", model, given, name=out)
        return
    from langslice.scoring.main import score as run
    from langslice.scoring.methods import check_method
    from langslice.scoring.pictures import can_draw, draw_scores

    if given.get("method"):  # before any file is looked at
        check_method(given["kind"], given["method"])
    refuse_existing(out, overwrite)
    png = picture or (out.with_suffix(".png") if can_draw() else None)
    if png is not None:
        refuse_existing(png, overwrite)
    with progress(quiet) as report:
        scores = run(model, report=report, **given)
    scores.save(out)
    if png is not None:
        draw_scores(scores, png)
    if not quiet:
        print_scores(scores, out, png)


def print_scores(scores: Scores, path: Path, picture: Path | None) -> None:
    """Layers, heads and a few experts one by one, neurons and many experts by quantile; then what was read."""
    import numpy as np
    from rich.markup import escape
    from rich.table import Table

    from langslice.cli.console import _right
    from langslice.formatting import stdout_console

    console = stdout_console()
    console.print(
        f"[bold]{escape(str(path))}[/]: {scores.kind} by {scores.method}, {len(scores.score):,} scores", highlight=False
    )
    for language in [*([""] if (scores.language == "").any() else []), *scores.languages]:
        for place, layers in scores.values(language).items():
            title = f"{place}, {language}" if language else place
            if scores.kind == "heads" or (scores.kind == "experts" and max(map(len, layers.values())) <= _LISTED):
                names = [str(number) for number in range(max(map(len, layers.values())))]
                table = Table("layer", *_right(*names), box=None, title=title, title_justify="left")
                for layer, row in layers.items():
                    table.add_row(str(layer), *[f"{value:.3g}" for value in row])
            elif scores.kind == "layers":
                table = Table("layer", *_right("score", "spread"), box=None, title=title, title_justify="left")
                spreads = scores.spreads(language)[place]
                for layer, row in layers.items():
                    table.add_row(str(layer), f"{row[0]:.4g}", f"{spreads[layer][0]:.2g}")
            else:
                table = Table("layer", *_right(scores.kind, "lowest", "5%", "median", "95%", "highest"), box=None,
                              title=title, title_justify="left")  # fmt: skip
                for layer, row in layers.items():
                    marks = np.quantile(row, [0, 0.05, 0.5, 0.95, 1])
                    table.add_row(str(layer), f"{len(row):,}", *[f"{value:.3g}" for value in marks])
            console.print(table)
    _print_end(scores, picture)


def _print_end(scores: Scores, picture: Path | None) -> None:
    from langslice.formatting import stdout_console

    console = stdout_console()
    read = f"text: {', '.join(scores.texts)}; mean of {len(scores.seeds)} seeds" if scores.texts else "no text was read"
    loss = f"; loss: {scores.loss}" if scores.loss else ""
    console.print(read + loss, highlight=False, markup=False)
    for note in scores.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if picture is not None:
        console.print(f"picture: {picture}", highlight=False, markup=False)
    else:
        console.print('no picture: pip install "langslice[pictures]"', highlight=False, markup=False)
