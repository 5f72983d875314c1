"""The command line: one command a file in commands/, errors of the library as one message and an exit code.

Data goes to stdout, the rest to stderr. Nothing heavy is imported before a command runs, so that `langslice --help` answers
at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, TextIO

import typer

from langslice import __version__
from langslice.commands.adapter import adapter
from langslice.commands.count import count
from langslice.commands.demo import demo
from langslice.commands.demonstrations import demonstrations
from langslice.commands.evaluate import evaluate
from langslice.commands.features import features
from langslice.commands.init import init
from langslice.commands.inspect import inspect
from langslice.commands.mask import mask
from langslice.commands.heal import heal
from langslice.commands.options import option as _option
from langslice.commands.reproduce import reproduce
from langslice.commands.score import score as score_command
from langslice.commands.sweep import sweep
from langslice.errors import LangsliceError

# Other commands' modules read these names here.
from langslice.commands.output import print_json as _print_json
from langslice.commands.output import progress as _progress
from langslice.commands.output import refuse_existing as _refuse_existing
from langslice.commands.plan import plan
from langslice.commands.reproduce import reproduce
from langslice.commands.restore import restore
from langslice.commands.run import run
from langslice.commands.score import score
from langslice.commands.slice import slice
from langslice.commands.sweep import sweep
from langslice.commands.verify import verify
from langslice.errors import LangsliceError

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
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


app.command()(inspect)
app.command()(init)
app.command()(run)
app.command()(plan)
app.command()(slice)
app.command()(mask)
app.command()(verify)
app.command()(count)
app.command()(demo)
app.command()(score)
app.command()(demonstrations)
app.command()(features)
app.command()(evaluate)
app.command()(sweep)
app.command()(reproduce)
app.command()(restore)
app.command()(adapter)
app.command()(heal)


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


__all__ = ["_print_json", "_progress", "_refuse_existing", "app", "main"]

if __name__ == "__main__":
    main()
