"""`langslice studio`: pages in a browser on a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from langslice.cli.commands.options import Quiet, choosing
from langslice.studio.options import StudioOptions


@choosing(StudioOptions)
def studio(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Models, or folders that models lie in. Default: mini.", show_default=False
        ),
    ] = None,
    *,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Look into a model in a browser, try cuts, and start jobs."""
    from langslice.studio.main import open_studio

    def ready(address: str) -> None:
        if not quiet:
            typer.echo(f"{address}  (Ctrl-C stops it; jobs that run go on)", err=True)

    open_studio(models or (), ready=ready, **given)
