"""What the commands' outputs have in common: progress on stderr, JSON and recipes on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from langslice.progress import Report


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, or whose folder does not. Raises OutputError."""
    from langslice.files.atomic_output import refuse_existing as refuse

    refuse(path, overwrite)


@contextmanager
def progress(quiet: bool) -> Iterator[Report]:
    """A progress display on stderr: the current step, and bytes where they are counted; and the file of `--progress`."""
    from langslice.progress import silent, with_record

    if quiet or not sys.stderr.isatty():
        yield with_record(silent)
        return
    from langslice.cli.console import live_progress

    with live_progress() as report:
        yield with_record(report)


def print_json(data: Any) -> None:
    """Data for machines, on stdout."""
    import json

    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))


def print_recipe(
    part: str, model: str | None, given: Mapping[str, Any], *, name: Path | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """The recipe that a command with these arguments amounts to, on stdout.

    name  output of a command whose part is named, which is named by it
    more  parts next to it
    """
    from langslice.recipes.equivalent import input_name, part_recipe, recipe_text

    made = part_recipe(part, model, given, name=None if name is None else input_name(name))
    typer.echo(recipe_text({**made, **(more or {})}), nl=False)
