"""`langslice adapter`: a LoRA for the original in, one for the slice out, or the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Out, Overwrite, choosing
from langslice.restoration.options import AdapterOptions


@choosing(AdapterOptions)
def adapter(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a LoRA, as peft saves it.")],
    out: Out,
    *,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    **given: Any,
) -> None:
    """Move a LoRA between a model and its slice."""
    from langslice.restoration import carry_adapter

    result = carry_adapter(adapter, out, overwrite=overwrite, **given)
    if quiet:
        return
    typer.echo(f"{result.out}: {result.tensors} tensors for the {result.to}")
    by_reason: dict[str, list[str]] = {}
    for name, why in result.not_carried.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        typer.echo(f"not carried: {names[0]}{more}: {why}")
