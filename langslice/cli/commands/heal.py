"""`langslice heal`: arguments in, one call of healing/main.py, a summary out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langslice.cli.commands.options import ShowRecipe
from langslice.cli.commands.options import option as _option
from langslice.cli.commands.output import print_json, print_recipe

if TYPE_CHECKING:
    from langslice.healing import HealResult
    from langslice.progress import Report


def heal(
    model: Annotated[str, typer.Argument(metavar="OUT", help="A slice, or any other model folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    corpus: Annotated[
        list[str] | None,
        _option("--corpus", "-c", help="Text to train on: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub "
                "dataset. A line or record is a document.", metavar="PATH"),
    ] = None,
    text_field: Annotated[
        str, typer.Option("--text-field", help="Field of jsonl and parquet records that holds the text.")
    ] = "text",
    pairs: Annotated[
        list[str] | None,
        _option("--pairs", help="Parallel sentences for embedding models: a .tsv or .jsonl file, or two aligned files.",
                metavar="FILE"),
    ] = None,
    fields: Annotated[str, typer.Option("--fields", help="Fields of both sides in jsonl pairs.")] = "source,target",
    teacher: Annotated[
        str | None, _option("--teacher", help="Distil from this model, the one that OUT was cut from.", metavar="MODEL")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps.")] = 1000,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows in a batch of one process.")] = 8,
    gradient_accumulation: Annotated[int, typer.Option("--gradient-accumulation", help="Batches in a step.")] = 1,
    seq_length: Annotated[
        int | None, _option("--seq-length", help="Tokens in a row; 256 unless given, or what the model reads.")
    ] = None,
    packing: Annotated[bool, typer.Option("--packing/--no-packing", help="Several documents in a row.")] = True,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="At its highest.")] = 2e-4,
    warmup: Annotated[float, typer.Option("--warmup", help="Share of the steps over which it rises.")] = 0.05,
    schedule: Annotated[str, typer.Option("--schedule", help="How it falls: linear, cosine, constant.")] = "linear",
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="Of AdamW.")] = 0.01,
    objective: Annotated[
        str, typer.Option("--objective", help="auto, causal, masked, denoising; embedding models: contrastive, mse.")
    ] = "auto",
    train: Annotated[
        str, typer.Option("--train", help='What trains: all, embeddings, norms, attention, feed-forward, positions, patterns '
                          'of names ("*.layers.0.*"); "!" leaves out. Several with commas.')
    ] = "all",
    lora: Annotated[int, typer.Option("--lora", help="Rank of a low-rank adapter; 0 trains weights themselves.")] = 0,
    lora_alpha: Annotated[float | None, _option("--lora-alpha", help="Its scale; twice the rank unless given.")] = None,
    lora_targets: Annotated[
        str | None, _option("--lora-targets", help='Linear layers that get one: "*.q_proj,*.v_proj"; by default all.')
    ] = None,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Write the adapter alone, not merged.")] = False,
    alpha: Annotated[float, typer.Option("--alpha", help="Share of the teacher in the loss.")] = 0.5,
    temperature: Annotated[float, typer.Option("--temperature", help="Of both distributions.")] = 1.0,
    hidden: Annotated[float, typer.Option("--hidden", help="Weight of the distance of hidden states.")] = 0.0,
    teacher_cache: Annotated[
        Path | None, _option("--teacher-cache", help="Keep the teacher's best guesses here, and no teacher in memory.",
                             metavar="DIR")
    ] = None,
    teacher_top: Annotated[int, typer.Option("--teacher-top", help="Guesses kept for each token.")] = 64,
    stream_teacher: Annotated[
        bool, typer.Option("--stream-teacher", help="Hold one layer of the teacher in memory at a time.")
    ] = False,
    any_teacher: Annotated[
        bool, typer.Option("--any-teacher", help="Allow a teacher that OUT was not cut from, of the same vocabulary.")
    ] = False,
    precision: Annotated[
        str, typer.Option("--precision", help="Of matrix products: float32, bfloat16, float16.")
    ] = "float32",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute activations twice instead of keeping them.")
    ] = False,
    zeros: Annotated[
        str, typer.Option("--zeros", help="Zeros that stay: auto (pruned weights), all, none (they may fill).")
    ] = "auto",
    heldout: Annotated[float, typer.Option("--heldout", help="Share of the documents that is only measured.")] = 0.02,
    eval_every: Annotated[
        int | None, _option("--eval-every", help="Steps between measurements; a tenth of the run unless given.")
    ] = None,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps between checkpoints.")] = 100,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where a killed run stopped, or begin anew.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="Of the order of the text, of masks and of dropout.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto or cpu.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:  # fmt: skip
    """Train a slice on, on text alone or towards the model that it was cut from; pruned weights stay zero."""
    given = dict(locals())
    if show_recipe:
        print_recipe(heal, "heal", model, given)
        return
    from dataclasses import fields as fields_of

    from langslice.healing import HealSettings
    from langslice.healing import heal as run
    from langslice.healing.trainer import is_first, last_checkpoint
    from langslice.healing.work_folder import InterruptedRun, work_folder

    values = {one.name: given[one.name] for one in fields_of(HealSettings)}
    values["teacher_cache"] = None if teacher_cache is None else str(teacher_cache)
    for name in ("corpus", "pairs", "lora_targets"):
        values[name] = values[name] or ()
    with _progress(quiet or json or not is_first()) as report:
        try:
            result = run(model, out, HealSettings(**values), overwrite=overwrite, report=report)
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
