"""`langslice restore`: a trained slice and its base in, the full model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langslice.cli.commands.options import option

if TYPE_CHECKING:
    from langslice.restoration import RestoreResult


def restore(
    healed: Annotated[str, typer.Argument(metavar="HEALED", help="A slice, trained since.")],
    base: Annotated[str, option("--base", help="The model that it was cut from: a folder or hub id.", metavar="MODEL")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    plan: Annotated[
        Path | None,
        option("--plan", help="slice.json of the slice, where HEALED has none (trained elsewhere).", metavar="FILE"),
    ] = None,
    everything: Annotated[
        bool,
        option(
            "--everything", help="Bring back layers, heads, neurons and pruned weights too, with the base's values."
        ),
    ] = False,
    text: Annotated[
        list[str] | None, option("--text", help="Held-out text to prove the result on.", metavar="PATH")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove the result, or only write.")] = True,
    revision: Annotated[str | None, option("--revision", help="Branch, tag or commit of a hub base.")] = None,
    token: Annotated[str | None, option("--token", help="Hub token, for gated models.")] = None,
    cache_dir: Annotated[Path | None, option("--cache-dir", help="Hub cache.")] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads that write.", min=1)] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:
    """Put a trained slice back into the full model: every token again, trained rows in their old places."""
    from langslice.cli.commands.output import progress
    from langslice.restoration import restore as run

    with progress(quiet) as report:
        result = run(
            healed, out, base=base, plan=plan, everything=everything, verify=verify, text=text or (),
            revision=revision, token=token, cache_dir=cache_dir, overwrite=overwrite, threads=threads, report=report,
        )  # fmt: skip
    if not quiet:
        print_restored(result)


def print_restored(result: RestoreResult) -> None:
    """What came from where, and the proof."""
    from dataclasses import replace

    from langslice.cli.console import print_proof
    from langslice.formatting import bytes_text, stdout_console

    console = stdout_console()
    kept, rows = result.rows
    console.print(f"{result.out}", highlight=False, style="bold")
    console.print(f"tokens     {kept:,} trained of {rows:,}", highlight=False)
    tensors = result.tensors
    console.print(
        f"tensors    {tensors['trained']} from the slice, {tensors['merged']} merged row by row, {tensors['base']} from "
        f"the base; {bytes_text(result.written.size_bytes)}",
        highlight=False,
    )
    if result.proof is not None:
        print_proof(replace(result.proof, texts=()))  # what became of other languages is the slice's affair
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
