"""`langslice reproduce`: a paper's name in, its tables out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langslice.cli.commands.output import progress

if TYPE_CHECKING:
    from langslice.reproduction.tables import Reproduction

PAPERS = ("kim2024", "kimkim2026")


def _folder(*names: str, help: str) -> object:
    return typer.Option(*names, help=help, metavar="DIR", show_default=False)


def reproduce(
    paper: Annotated[
        str, typer.Argument(metavar="PAPER", help="kim2024 (arXiv 2409.16911) or kimkim2026 (2604.16235).")
    ],
    model: Annotated[str, typer.Option("--model", help="A folder, a model on the hub, or `mini`, small and offline.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)],
    flores: Annotated[Path | None, _folder("--flores", help="flores200_dataset.")] = None,
    xnli: Annotated[Path | None, _folder("--xnli", help="XNLI-1.0, or one file a language.")] = None,
    marc: Annotated[Path | None, _folder("--marc", help="dataset_CODE_test.json.")] = None,
    data: Annotated[Path | None, _folder("--data", help="Folder of data sets in their usual layouts.")] = None,
    code: Annotated[Path | None, _folder("--code", help="Source files of the code-refined condition.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", help="Most items of each task and language.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", help="Rounds of kimkim2026's speed measurement (5).", show_default=False),
    ] = None,
    processes: Annotated[int, typer.Option("--processes", help="Runs of kim2024 at once.")] = 1,
    ray: Annotated[
        str | None, typer.Option("--ray", help="Ray cluster for kim2024.", metavar="ADDRESS", show_default=False)
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            "--published",
            help="Figures of the paper to stand beside ours: the form that a run leaves in its folder.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")] = False,
) -> None:
    """Run a paper's experiment again on a model, and print its tables; what could not be obtained is left out and named."""
    from langslice.errors import RecipeError
    from langslice.reproduction.published import FORM, beside_published, read_published, write_form

    if paper not in PAPERS:
        raise RecipeError(f"unknown paper {paper!r}", f"one of {', '.join(PAPERS)}")
    others = {
        "--xnli": xnli,
        "--marc": marc,
        "--code": code,
        "--ray": ray,
        "--processes": processes if processes > 1 else None,
    }
    if paper == "kimkim2026" and (given := [name for name, value in others.items() if value is not None]):
        raise RecipeError(f"kimkim2026 does not read {', '.join(given)}", "these belong to kim2024; leave them out")
    if paper == "kim2024" and rounds is not None:
        raise RecipeError("kim2024 does not read --rounds", "it measures no speed; leave it out")
    for name, number in (("--limit", limit), ("--rounds", rounds)):
        if number is not None and number < 1:
            raise RecipeError(f"{name} must be at least 1, found {number}")
    titles, conditions = _known(paper)
    figures = None if published is None else read_published(published, titles, conditions)
    with progress(quiet) as report:
        if paper == "kim2024":
            from langslice.reproduction.kim2024 import kim2024

            found = kim2024(
                model, out, flores=flores, xnli=xnli, marc=marc, data=data, code=code, limit=limit, device=device,
                processes=processes, ray=ray, report=report,
            )  # fmt: skip
        else:
            from langslice.reproduction.kimkim2026 import ROUNDS, kimkim2026

            found = kimkim2026(
                model, out, flores=flores, data=data, limit=limit, rounds=rounds or ROUNDS, device=device, report=report
            )
    if len(found.sweep.failed) == len(found.sweep.runs):
        reason = found.sweep.failed[0].error.strip()
        raise RecipeError(f"every condition failed; the first of them:\n  {reason}", f"logs are below {out}")
    write_form(out / FORM, [sheet for sheet in found.sheets if sheet.title in titles])
    if figures is not None:
        sheets, notes = beside_published(found.sheets, figures)
        found = replace(found, sheets=sheets, notes=(*found.notes, *notes))
    found.save(out / "report.md")
    if not quiet:
        print_reproduction(found, out)
    if found.sweep.failed:
        raise RecipeError(
            f"{len(found.sweep.failed)} of {len(found.sweep.runs)} conditions failed", f"logs are below {out}"
        )


def _known(paper: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Titles of a paper's tables, and its conditions."""
    from langslice.reproduction import kim2024, kimkim2026

    if paper == "kim2024":
        return tuple(kim2024.TABLES), kim2024.CONDITIONS
    return (kimkim2026.SIZES, *kimkim2026.TABLES), tuple(kimkim2026.CONDITIONS)


def print_reproduction(found: Reproduction, out: Path) -> None:
    """Every table, then what a reader must know."""
    from rich.markup import escape
    from rich.table import Column, Table

    from langslice.formatting import stdout_console

    console = stdout_console()
    for sheet in found.sheets:
        table = Table("", *[Column(name, justify="right") for name in sheet.columns], box=None, title=sheet.title,
                      title_justify="left")  # fmt: skip
        for name, cells in sheet.rows:
            table.add_row(name, *cells)
        console.print(table)
        console.print()
    console.print("* differs from the whole model, p < 0.05 by the paired bootstrap", highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    console.print(f"written: {out / 'report.md'}", highlight=False)
