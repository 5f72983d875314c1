"""`langslice slice`: a model in, a smaller one out, with the proof that what was kept is intact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import (
    Choice,
    HeldOut,
    Model,
    Out,
    Overwrite,
    Quiet,
    Ray,
    ShowRecipe,
    Verify,
    choosing,
    option,
)
from langslice.cli.commands.output import print_recipe, progress


@choosing(Choice)
def slice(
    model: Model,
    out: Out,
    plan: Annotated[Path | None, option("--plan", help="Do what this plan says.", metavar="FILE")] = None,
    *,
    text: HeldOut = None,
    verify: Verify = True,
    link: Annotated[bool, typer.Option("--link", help="Hard-link untouched shards instead of copying them.")] = False,
    threads: Annotated[int, typer.Option("--threads", help="Threads that write.", min=1)] = 2,
    ray: Ray = None,
    overwrite: Overwrite = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **choice: Any,
) -> None:
    """Plan, slice and prove in one go, or do what a plan says."""
    if show_recipe:
        verified: Any = {"text": list(text)} if text else {}
        more = {} if verify and not text else {"verify": verified if verify else False}
        print_recipe(slice, "slice", model, {**choice, "plan": plan}, more=more)
        return
    from langslice.slicing import main as job

    with progress(quiet) as report:
        result = job.slice(
            model, out, plan=plan, verify=verify, text=text or (), link=link, overwrite=overwrite, threads=threads,
            ray=ray, report=report, **choice,
        )  # fmt: skip
    from langslice.cli.console import print_result, print_warnings

    if not quiet:
        print_result(result)
    print_warnings(result.proof)
