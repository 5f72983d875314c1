"""`langslice slice`: a model in, a smaller one out, with the proof that what was kept is intact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import USED, ModelOrGguf, Overwrite, Quiet, ShowRecipe, choosing, option
from langslice.cli.commands.output import print_recipe, progress
from langslice.slicing.options import SliceOptions


@choosing(SliceOptions)
def slice(
    model: ModelOrGguf,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Output folder; of a GGUF file, a file.", show_default=False, rich_help_panel=USED
        ),
    ],
    plan: Annotated[
        Path | None, option("--plan", help="Plan file to follow, made by `langslice plan`.", metavar="FILE")
    ] = None,
    *,
    overwrite: Overwrite = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Slice a model, and verify the result."""
    if show_recipe:
        print_recipe("slice", model, {**given, "plan": plan}, more=verification(given))
        return
    from langslice.slicing import main as job

    with progress(quiet) as report:
        result = job.slice(model, out, plan=plan, overwrite=overwrite, report=report, **given)
    from langslice.cli.console import print_result, print_warnings

    if not quiet:
        print_result(result)
    print_warnings(result.verification)


def verification(given: dict[str, Any]) -> dict[str, Any]:
    """The part `verify` of a recipe, where the proof is not as it is of itself."""
    if not given.get("verify", True):
        return {"verify": False}
    return {"verify": {"text": list(given["text"])}} if "text" in given else {}
