"""`langslice features`: which hidden dimensions are large while a model translates, and small otherwise; steering."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import USED, Model, Quiet, ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe, progress
from langslice.features.options import FeatureOptions

if TYPE_CHECKING:
    from langslice.features.main import Features
    from langslice.steering import Steering


@choosing(FeatureOptions)
def features(
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Output folder for tables and pictures.", show_default=False, rich_help_panel=USED
        ),
    ],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into an existing folder.", rich_help_panel="Output")
    ] = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Find dimensions that stand out, or steer to a language."""
    if show_recipe:
        print_recipe("features", model, given)
        return
    from langslice.features.main import find_features

    with progress(quiet) as report:
        found = find_features(model, out, overwrite=overwrite, report=report, **given)
    if not quiet:
        _print(found, out)


def _print(found: Features, out: Path) -> None:
    from langslice.cli.commands.feature_tables import print_ablation, print_particular, print_translations

    for name, marked in found.marks.items():
        print_particular(found.measured, name, marked)
    for name, measurements in found.ablations.items():
        print_ablation(name, measurements)
    for name, translated in found.translations.items():
        print_translations(name, translated)
    if found.marks or found.measured.conditions:
        typer.echo(f"{out}: tables and pictures", err=True)
    if found.steering is not None:
        _print_steering(found.steering, out)


def _print_steering(steering: Steering, out: Path) -> None:
    """What steers, layer by layer."""
    from rich.table import Table

    from langslice.cli.console import _right
    from langslice.formatting import stdout_console

    console = stdout_console()
    sources = ", ".join(steering.sources)
    console.print(
        f"{steering.method} to {steering.language} from {sources}, strength {steering.strength:g}",
        highlight=False,
        markup=False,
    )
    by_norm = steering.method == "diffmean"
    table = Table("layer", *_right("norm of the vector" if by_norm else "neurons"), box=None)
    for layer, vector in sorted(steering.vectors.items()):
        size = float((vector.astype(float) ** 2).sum())
        table.add_row(str(layer), f"{size**0.5:.4g}" if by_norm else f"{size:.0f}")
    console.print(table)
    typer.echo(f"{out}: adapter; use it with langslice.steering.apply_steering", err=True)
