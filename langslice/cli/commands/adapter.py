"""`langslice adapter`: a LoRA for the original in, one for the slice out, or the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langslice.cli.commands.options import option


def adapter(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a LoRA, as peft saves it.")],
    plan: Annotated[Path, option("--plan", help="slice.json of the slice, or its plan.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    to: Annotated[
        str | None,
        option(
            "--to", help="slice or original; by default the side that the adapter does not fit yet.", metavar="SIDE"
        ),
    ] = None,
    base: Annotated[
        str | None,
        option("--base", help="The original, where the adapter holds whole tables to fill up.", metavar="MODEL"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
) -> None:
    """Move a LoRA between a model and its slice."""
    from langslice.restoration import carry_adapter

    result = carry_adapter(adapter, out, plan=plan, to=to, base=base, overwrite=overwrite)
    if quiet:
        return
    typer.echo(f"{result.out}: {result.tensors} tensors for the {result.to}")
    by_reason: dict[str, list[str]] = {}
    for name, why in result.not_carried.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        typer.echo(f"not carried: {names[0]}{more}: {why}")
