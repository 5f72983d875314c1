"""The command line: one command a file in commands/, errors of the library as one message and an exit code.

Data goes to stdout, the rest to stderr. Nothing heavy is imported before a command runs, so that `langslice --help` answers
at once.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Annotated, TextIO

import typer

from langslice.cli.commands.adapter import adapter
from langslice.cli.commands.count import count
from langslice.cli.commands.demo import demo
from langslice.cli.commands.demonstrations import demonstrations
from langslice.cli.commands.evaluate import evaluate
from langslice.cli.commands.features import features
from langslice.cli.commands.heal import heal
from langslice.cli.commands.init import init
from langslice.cli.commands.inspect import inspect
from langslice.cli.commands.mask import mask
from langslice.cli.commands.plan import plan
from langslice.cli.commands.push import push
from langslice.cli.commands.report import report
from langslice.cli.commands.reproduce import reproduce
from langslice.cli.commands.restore import restore
from langslice.cli.commands.run import run
from langslice.cli.commands.score import score
from langslice.cli.commands.slice import slice
from langslice.cli.commands.sweep import sweep
from langslice.cli.commands.tradeoff import tradeoff
from langslice.cli.commands.verify import verify
from langslice.errors import LangsliceError
from langslice.invocation import remember_command
from langslice.version import __version__
from langslice.wording import OPTIONS, speaking

app = typer.Typer(
    name="langslice",
    help="Slice a pretrained multilingual model to the languages you need, and prove that what you kept is intact.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_INTERRUPTED = 130


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"langslice {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Work out anew what is kept in the user's cache (LANGSLICE_CACHE).")
    ] = False,
) -> None:
    if no_cache:
        from langslice.files.user_cache import without_cache

        context.with_resource(without_cache())
    # Until the command ends, messages name options as they are typed.
    context.with_resource(speaking(OPTIONS))


# In the order of the help page: the main job, then choosing, measuring, training, handing on.
for command in (
    inspect, plan, tradeoff, slice, mask, verify, run, init, demo,
    count, score, demonstrations, features,
    evaluate, sweep, reproduce,
    heal, restore, adapter,
    report, push,
):  # fmt: skip
    app.command()(command)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line for people: what it says, not where in the code it arose."""
    typer.echo(f"note: {message}", err=True)


def main() -> None:
    """Run the command line; errors of langslice become one message on stderr and an exit code."""
    # Transformers would otherwise warn about its tokenizers in processes that were forked.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # What is imported stays: to look through it for garbage again and again would take a fifth of the start.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    remember_command(sys.argv[1:])
    warnings.showwarning = _show_warning
    try:
        app()
    except LangsliceError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        typer.echo(f"error: {error}\nhint: check the path, the rights and the disk", err=True)
        sys.exit(2)
    except SystemExit as stop:
        # typer turns Ctrl-C into this code itself, without a word.
        if stop.code == _INTERRUPTED:
            typer.echo("interrupted; nothing was left behind", err=True)
        raise


if __name__ == "__main__":
    main()
