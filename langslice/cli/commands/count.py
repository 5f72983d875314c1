"""`langslice count`: text in, the number of times that each token occurs in it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Choice, Model, Quiet, Ray, ShowRecipe, choosing, option
from langslice.cli.commands.output import print_recipe, progress, refuse_existing


@choosing(Choice, "corpus", "text_field", "processes", "revision", "token", "cache_dir")
def count(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.", show_default=False)],
    *,
    language_id: Annotated[
        str | None,
        option("--language-id", help="Count only the lines in these languages (needs lingua): ko,en.", metavar="CODES"),
    ] = None,
    ray: Ray = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing counts.")] = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **choice: Any,
) -> None:
    """Count a model's tokens in a corpus, for plans to reuse."""
    from langslice.errors import LangsliceError
    from langslice.slicing import main as job

    if "corpus" not in choice:
        raise LangsliceError("no corpus was given", hint="add --corpus PATH")
    if show_recipe:
        print_recipe(count, "count", model, {**choice, "language_id": language_id}, name=out)
        return
    refuse_existing(out, overwrite)
    with progress(quiet) as report:
        counted = job.count(model, languages=language_id or (), ray=ray, report=report, **choice)
    counted.save(out)
    if not quiet:
        from langslice.cli.console import print_counts

        print_counts(counted, out)
