"""`langslice push`: a slice onto the hub, card included."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import choosing
from langslice.options import build, listed
from langslice.slicing.options import PushOptions

if TYPE_CHECKING:
    from langslice.slicing.publish import Upload


@choosing(PushOptions)
def push(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a slice.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the hub.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be uploaded and exit.", rich_help_panel="Run")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.", rich_help_panel="Run")] = False,
    **given: Any,
) -> None:
    """Upload a slice to the hub, with its card and licence."""
    from langslice.errors import PublishError
    from langslice.slicing.publish import plan_upload, send

    options = build(PushOptions, given)
    planned = plan_upload(
        folder, repo_id, unproven=options.unproven, include=listed(options.include), leave_out=listed(options.leave_out)
    )
    _show(planned, options.private, options.revision)
    if dry_run:
        typer.echo("nothing was uploaded (--dry-run)", err=True)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise PublishError("publishing needs a yes", hint="pass --yes where nobody can be asked")
        if not typer.confirm(f"Upload to {repo_id}?", err=True):
            typer.echo("nothing was uploaded", err=True)
            raise typer.Exit(code=1)
    typer.echo(send(planned, options=options))


def _show(upload: Upload, private: bool, revision: str | None) -> None:
    """Every file with its size, the licence, the card, and what else a person should know, on stderr."""
    from langslice.formatting import bytes_text

    where = f"{upload.repo_id}, branch {revision}" if revision else upload.repo_id
    kind = "private, if new" if private else "public, if new"
    typer.echo(
        f"{upload.folder} to {where} ({kind}): {len(upload.files)} files, {bytes_text(upload.size_bytes)}", err=True
    )
    width = max(map(len, upload.files), default=0)
    for name, size in upload.files.items():
        typer.echo(f"  {name:<{width}}  {bytes_text(size):>9}", err=True)
    typer.echo(f"licence: {upload.licence or 'none stated by the source'}", err=True)
    typer.echo(f"model card: {upload.card}", err=True)
    for note in upload.notes:
        typer.echo(f"note: {note}", err=True)
