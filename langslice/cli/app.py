"""The command line: one command a file in commands/, errors of the library as one message and an exit code.

Data goes to stdout, the rest to stderr. Nothing heavy is imported before a command runs, so that `langslice --help` answers
at once.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, TextIO

import typer

from langslice.cli.commands.adapter import adapter
from langslice.cli.commands.count import count
from langslice.cli.commands.demo import demo
from langslice.cli.commands.demonstrations import demonstrations
from langslice.cli.commands.evaluate import evaluate
from langslice.cli.commands.export import export
from langslice.cli.commands.features import features
from langslice.cli.commands.fit import fit
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
from langslice.cli.commands.studio import studio
from langslice.cli.commands.sweep import sweep
from langslice.cli.commands.tradeoff import tradeoff
from langslice.cli.commands.verify import verify
from langslice.cli.help import CommandHelp, ProgramHelp
from langslice.errors import LangsliceError
from langslice.invocation import remember_command
from langslice.version import __version__
from langslice.wording import OPTIONS, speaking

app = typer.Typer(
    name="langslice",
    cls=ProgramHelp,
    help="Slice a pretrained multilingual model to the languages you need, and verify that kept text behaves identically.\n\n"
    "The first step: langslice slice mini --languages ko,en -o mini-ko-en",
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
    progress: Annotated[
        Path | None,
        typer.Option(
            "--progress", metavar="FILE", help="Also append progress to a file, a line of JSON for each event."
        ),
    ] = None,
) -> None:
    if progress is not None:
        from langslice.progress import recorded

        context.with_resource(recorded(progress))
    if no_cache:
        from langslice.files.user_cache import without_cache

        context.with_resource(without_cache())
    # Until the command ends, messages name options as they are typed.
    context.with_resource(speaking(OPTIONS))


# Heading of the help page -> each command, with an example that its help shows.
_COMMANDS = {
    "Slice": (
        (inspect, "langslice inspect mini --languages ko,en"),
        (plan, "langslice plan mini --languages ko,en -o plan.json"),
        (tradeoff, "langslice tradeoff mini --languages ko,en -o tradeoff.json"),
        (fit, "langslice fit mini --languages ko,en --size 1.5MB -o mini-fit"),
        (slice, "langslice slice mini --languages ko,en -o mini-ko-en"),
        (mask, "langslice mask mini --heads-sparsity 0.25 -o mini-masked"),
        (verify, "langslice verify mini mini-ko-en"),
        (demo, "langslice demo"),
        (studio, "langslice studio mini"),
    ),
    "Whole jobs, from a file": (
        (init, "langslice init mini --languages ko,en -o recipe.yaml"),
        (run, "langslice run recipe.yaml -o work"),
        (sweep, "langslice sweep sweep.yaml -o sweep"),
        (reproduce, "langslice reproduce kim2024 --model google/mt5-small --data DATA -o kim2024"),
    ),
    "What to keep: counts, scores, calibration data": (
        (count, "langslice count mini --corpus ko.txt -o counts.parquet"),
        (score, "langslice score mini heads --method l2 -o heads.parquet"),
        (demonstrations, "langslice demonstrations --parallel fr-en.tsv --shots 2 --count 10 -o fr-en.jsonl"),
        (features, "langslice features mini --demos mt=fr-en.jsonl --against en.jsonl -o features"),
    ),
    "Evaluate, train, restore": (
        (evaluate, "langslice evaluate mini mini-ko-en --languages ko,en"),
        (heal, "langslice heal mini-ko-en --teacher mini --corpus ko.txt --steps 20 --seq-length 64 -o healed"),
        (restore, "langslice restore healed --base mini -o restored"),
        (adapter, "langslice adapter lora --plan mini-ko-en/slice.json -o lora-ko-en"),
    ),
    "Publish": (
        (export, "langslice export mini-ko-en --to gguf --pre qwen35 -o mini-gguf"),
        (report, "langslice report mini-ko-en"),
        (push, "langslice push mini-ko-en ORG/NAME --dry-run"),
    ),
}
for _panel, _listed in _COMMANDS.items():
    for _command, _example in _listed:
        app.command(cls=CommandHelp, rich_help_panel=_panel, epilog=_example)(_command)


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
