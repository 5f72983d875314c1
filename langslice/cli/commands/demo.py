"""`langslice demo`: the main job on the packaged model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langslice.cli.commands.options import USED, Quiet
from langslice.cli.commands.output import progress


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to keep the slice in.", rich_help_panel=USED)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Slice the packaged model to Korean and English, offline."""
    from langslice.cli.console import print_demo, print_inspection, print_result
    from langslice.slicing.demo import run_demo

    with progress(quiet) as report:
        made = run_demo(out, report=report)
    print_inspection(made.inspection)
    print_result(made.result)
    print_demo(made)
