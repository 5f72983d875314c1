"""`langslice mask`: the cuts of `slice` as zeros, so that every client loads the result."""

from __future__ import annotations

from typing import Any

from langslice.cli.commands.options import Model, Out, Overwrite, Quiet, ShowRecipe, choosing
from langslice.cli.commands.output import print_recipe, progress
from langslice.cli.commands.slice import verification
from langslice.slicing.options import MaskOptions


@choosing(MaskOptions)
def mask(
    model: Model,
    out: Out,
    *,
    overwrite: Overwrite = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Zero heads and neurons: same shapes, for any client."""
    if show_recipe:
        print_recipe("slice", model, {**given, "output_style": "masked"}, more=verification(given))
        return
    from langslice.slicing import main as job

    with progress(quiet) as report:
        result = job.mask(model, out, overwrite=overwrite, report=report, **given)
    if not quiet:
        from langslice.cli.console import print_result

        print_result(result)
