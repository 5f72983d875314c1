"""`langslice push`: a slice onto the hub, card included."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langslice.cli.commands.options import option as _option

if TYPE_CHECKING:
    from langslice.slicing.publish import Upload


def push(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `langslice slice` made.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, _option("--revision", help="Branch to upload to.", metavar="BRANCH")] = None,
    token: Annotated[str | None, _option("--token", help="Hub token; else the one of `hf auth login`.")] = None,
    create: Annotated[
        bool, typer.Option("--create/--no-create", help="Make the repository where it does not exist.")
    ] = True,
    message: Annotated[str | None, _option("--message", "-m", help="Message of the commit.")] = None,
    include: Annotated[
        list[str] | None, _option("--include", help="Upload files that langslice did not write.", metavar="GLOB")
    ] = None,
    leave_out: Annotated[list[str] | None, _option("--leave-out", help="Leave files here.", metavar="GLOB")] = None,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Publish a slice without a proof, or with one that failed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Upload a slice to the hub, with its model card and the source's licence."""
    from langslice.errors import PublishError
    from langslice.slicing.publish import plan_upload
    from langslice.slicing.publish import push as upload_to_hub

    upload = plan_upload(folder, repo_id, unproven=unproven, include=include or (), leave_out=leave_out or ())
    _show(upload, private, revision)
    if dry_run:
        typer.echo("nothing was uploaded (--dry-run)", err=True)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise PublishError("publishing needs a yes", hint="pass --yes where nobody can be asked")
        if not typer.confirm(f"Upload to {repo_id}?", err=True):
            typer.echo("nothing was uploaded", err=True)
            raise typer.Exit(code=1)
    typer.echo(upload_to_hub(upload, private=private, revision=revision, token=token, create=create, message=message))


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
