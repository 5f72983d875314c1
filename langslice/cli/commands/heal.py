"""`langslice heal`: arguments in, one call of healing/main.py, a summary out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import Json, Out, Overwrite, Quiet, ShowRecipe, choosing
from langslice.cli.commands.output import print_json, print_recipe
from langslice.healing.options import HealOptions

if TYPE_CHECKING:
    from langslice.healing import HealResult
    from langslice.progress import Report


@choosing(HealOptions)
def heal(
    model: Annotated[str, typer.Argument(metavar="OUT", help="A slice, or any other model folder.")],
    out: Out,
    *,
    json: Json = False,
    overwrite: Overwrite = False,
    show_recipe: ShowRecipe = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Train a slice further, on text or with a teacher.

    Pruned weights stay zero. An interrupted run resumes.
    """
    if show_recipe:
        print_recipe("heal", model, given)
        return
    from langslice.healing import heal as run
    from langslice.healing.trainer import is_first, last_checkpoint
    from langslice.healing.work_folder import InterruptedRun, work_folder

    with _progress(quiet or json or not is_first()) as report:
        try:
            result = run(model, out, overwrite=overwrite, report=report, **given)
        except KeyboardInterrupt:
            kept = last_checkpoint(work_folder(out))
            if kept is None:
                raise
            raise InterruptedRun(
                f"interrupted; step {kept.name.rpartition('-')[2]} is kept in {work_folder(out)}",
                "the same command goes on from there",
            ) from None
    if not is_first():
        return
    if json:
        print_json(summary(result))
    elif not quiet:
        print_result(result)


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """One line on stderr: what is done, steps of how many, and the time that is left."""
    import sys

    from langslice.progress import silent

    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def report(step: str, done: int, total: int) -> None:
            progress.update(task, description=escape(step), completed=done, total=total or None)

        yield report


def summary(result: HealResult) -> dict[str, object]:
    """A result as JSON."""
    return {
        "out": str(result.out), "settings": result.settings.to_json(), "steps": result.steps, "loss": dict(result.loss),
        "trained": list(result.trained), "masks": {name: dict(one) for name, one in result.masks.items()},
        "seconds": result.seconds, "resumed": result.resumed, "files": list(result.files), "notes": list(result.notes),
    }  # fmt: skip


def print_result(result: HealResult) -> None:
    """Losses before and after, what trained, and that zeros stayed."""
    from rich.markup import escape
    from rich.table import Table

    from langslice.cli.console import _right
    from langslice.formatting import stdout_console

    console = stdout_console()
    resumed = f", taken up again at step {result.resumed}" if result.resumed else ""
    console.print(
        f"[bold]{escape(str(result.out))}[/]: {result.steps:,} steps in {result.seconds:,.0f} s{resumed}; "
        f"{len(result.trained)} tensors trained",
        highlight=False,
    )
    table = Table("loss", *_right("before", "after"), box=None)
    what = "text and teacher" if result.settings.teacher else "training text"
    table.add_row(f"{what}, first and last step", f"{result.loss['first']:.4g}", f"{result.loss['last']:.4g}")
    if "heldout_before" in result.loss:
        before, after = (result.loss[f"heldout_{when}"] for when in ("before", "after"))
        table.add_row("held-out text", f"{before:.4g}", f"{after:.4g}")
    console.print(table)
    if result.masks:
        zeros = sum(one["after"] for one in result.masks.values())
        console.print(f"zeros: {zeros:,} in {len(result.masks)} pruned tensors, as many and the same as before")
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    console.print(f"curves: {', '.join(result.files)}", highlight=False, markup=False)
    if len(result.files) == 1:
        console.print('no picture: pip install "langslice[pictures]"', highlight=False, markup=False)
