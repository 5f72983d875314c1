"""`langslice demo`: the main job on the packaged model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langslice.cli.commands.options import Quiet
from langslice.cli.commands.output import progress


def demo(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the slice in this folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Do the main job on the small model that comes with the package, offline."""
    from langslice.cli.console import print_demo, print_inspection, print_result
    from langslice.mini import mini_model_path
    from langslice.slicing import main as job
    from langslice.slicing.demo import LANGUAGES, run_demo

    with progress(quiet) as report:
        found = job.inspect(mini_model_path(), languages=[",".join(LANGUAGES), "ar,fr"], report=report)
        made = run_demo(out, report=report)
    print_inspection(found)
    print_result(made.result)
    print_demo(made)
