"""`langslice evaluate`: arguments in, one call of evaluation/main.py, a table and a file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Json, Model, ShowRecipe, choosing, option
from langslice.cli.commands.output import print_json, print_recipe, progress, refuse_existing
from langslice.evaluation.options import EvaluateOptions


@choosing(EvaluateOptions)
def evaluate(
    model: Model,
    out: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="A slice of it. Default: evaluate the model alone.")
    ] = None,
    results: Annotated[
        Path | None, option("--out", "-o", help="JSON file to write the results to.", metavar="FILE")
    ] = None,
    *,
    json: Json = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.", rich_help_panel="Output")
    ] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no table.", rich_help_panel="Run")
    ] = False,
    **given: Any,
) -> None:
    """Evaluate a model and its slice side by side."""
    if show_recipe:
        print_recipe("evaluate", model, {"tasks": "perplexity", **given, "beside": out})
        return
    from langslice.evaluation.main import evaluate as run

    if results is not None:
        refuse_existing(results, overwrite)
    with progress(quiet or json) as report:
        found = run(model, out, report=report, **given)
    if results is not None:
        found.save(results)
    if json:
        print_json(found.to_json())
    elif not quiet:
        from langslice.evaluation.tables import print_evaluation

        print_evaluation(found)
