"""`langslice features`: which hidden dimensions are large while a model translates, and small otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import USED, Model, Quiet, ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe, progress
from langslice.features.options import FeatureOptions

if TYPE_CHECKING:
    from langslice.features.main import Features


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
    """Find hidden dimensions that stand out for an ability."""
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
    typer.echo(f"{out}: tables and pictures", err=True)
