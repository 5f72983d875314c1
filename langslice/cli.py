"""The command line: arguments in, one call of job.py, results out. Data goes to stdout, the rest to stderr.

Nothing heavy is imported before a command runs, so that `langslice --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

from langslice import __version__
from langslice.commands.evaluate import evaluate
from langslice.commands.reproduce import reproduce
from langslice.commands.sweep import sweep
from langslice.errors import LangsliceError

if TYPE_CHECKING:
    from langslice.choice import Choice
    from langslice.progress import Report

app = typer.Typer(
    name="langslice",
    help="Slice a pretrained multilingual model to the languages you need, and prove that what you kept is intact.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A local folder, or the id of a model on the hub.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)]


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


Languages = Annotated[
    str | None,
    _option("--languages", "-l", help="BCP 47 codes: ko,en. Evidence is each language's word list.", metavar="CODES"),
]
Corpus = Annotated[
    list[str] | None,
    _option(
        "--corpus",
        "-c",
        help="Text to count: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset.",
        metavar="PATH",
    ),
]
TextField = Annotated[str, typer.Option("--text-field", help="Field of jsonl and parquet records that holds the text.")]
Counts = Annotated[
    list[str] | None,
    _option("--counts", help="Counts made by `langslice count`; FILE=0.5 weighs them.", metavar="FILE"),
]
LanguageId = Annotated[
    bool, _option("--language-id", help="Keep only the corpus lines that are in the wanted languages (needs lingua).")
]
Lexicon = Annotated[
    list[str] | None,
    _option("--lexicon", help="Words to keep whole, one a line, optionally a tab and a weight.", metavar="FILE"),
]
Scripts = Annotated[
    str | None, _option("--scripts", help="Keep every token of these scripts: Hang,Latn.", metavar="CODES")
]
DropScripts = Annotated[
    str | None,
    _option("--drop-scripts", help="Drop the tokens of these scripts, whatever the evidence.", metavar="CODES"),
]
Coverage = Annotated[
    float | None,
    _option("--coverage", help="Cut rare tokens: keep the most frequent that cover this share, such as 0.9999."),
]
MinCount = Annotated[int | None, _option("--min-count", help="Least count in the corpus of a token kept for it.")]
MaxVocab = Annotated[int | None, _option("--max-vocab", help="Most tokens in the result.")]
TopK = Annotated[int | None, _option("--top-k", help="Most tokens from each piece of evidence.")]
KeepTokens = Annotated[list[str] | None, _option("--keep-tokens", help="Tokens to keep, one a line.", metavar="FILE")]
KeepCode = Annotated[bool, _option("--keep-code", help="Keep indentation, operators and identifiers of source code.")]
PadTo = Annotated[int | None, _option("--pad-to-multiple-of", help="Pad the vocabulary, for tensor cores: 64.")]
IgnoreField = Annotated[
    list[str] | None,
    _option(
        "--ignore-field", help="A configuration field that holds no token ids, whatever its name says.", metavar="NAME"
    ),
]
Carry = Annotated[list[str] | None, _option("--carry", help="Copy files that langslice does not know.", metavar="GLOB")]
LeaveOut = Annotated[
    list[str] | None, _option("--leave-out", help="Leave out files that langslice does not know.", metavar="GLOB")
]
Revision = Annotated[str | None, _option("--revision", help="Branch, tag or commit of a hub model.")]
Token = Annotated[str | None, _option("--token", help="Hub token, for gated models.")]
CacheDir = Annotated[Path | None, _option("--cache-dir", help="Hub cache.")]
Processes = Annotated[int | None, _option("--processes", help="Processes that count; all cores unless given.")]
HeldOut = Annotated[list[str] | None, _option("--text", help="Held-out text to prove the slice on.", metavar="PATH")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


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


@app.command()
def inspect(
    model: Model,
    languages: Annotated[
        list[str] | None,
        _option(
            "--languages", "-l", help="A set to compute instead of the common ones; may be repeated.", metavar="CODES"
        ),
    ] = None,
    json: Json = False,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
) -> None:
    """Show what is in a model, and what each cut would save."""
    from langslice import job

    with _progress(quiet or json) as report:
        found = job.inspect(
            model, languages=languages or (), revision=revision, token=token, cache_dir=cache_dir, report=report
        )
    if json:
        _print_json(found.to_json())
    else:
        from langslice.console import print_inspection

        print_inspection(found)


@app.command()
def plan(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Plan file to write.", show_default=False)],
    languages: Languages = None,
    corpus: Corpus = None,
    text_field: TextField = "text",
    counts: Counts = None,
    language_id: LanguageId = False,
    lexicon: Lexicon = None,
    scripts: Scripts = None,
    drop_scripts: DropScripts = None,
    coverage: Coverage = None,
    min_count: MinCount = None,
    max_vocab: MaxVocab = None,
    top_k: TopK = None,
    keep_tokens: KeepTokens = None,
    keep_code: KeepCode = False,
    pad_to_multiple_of: PadTo = None,
    ignore_field: IgnoreField = None,
    carry: Carry = None,
    leave_out: LeaveOut = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    processes: Processes = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing plan.")] = False,
    quiet: Quiet = False,
) -> None:
    """Choose what to keep, and write it as a plan that you can read and edit."""
    choice = _choice(locals())
    from langslice import job
    from langslice.slice_plan import save_plan

    _refuse_existing(out, overwrite)
    with _progress(quiet) as report:
        made = job.plan(model, report=report, **choice)
    save_plan(made, out)
    if not quiet:
        from langslice.console import print_plan

        print_plan(made, out)


@app.command()
def slice(
    model: Model,
    out: Out,
    plan: Annotated[Path | None, _option("--plan", help="Do what this plan says.", metavar="FILE")] = None,
    languages: Languages = None,
    corpus: Corpus = None,
    text_field: TextField = "text",
    counts: Counts = None,
    language_id: LanguageId = False,
    lexicon: Lexicon = None,
    scripts: Scripts = None,
    drop_scripts: DropScripts = None,
    coverage: Coverage = None,
    min_count: MinCount = None,
    max_vocab: MaxVocab = None,
    top_k: TopK = None,
    keep_tokens: KeepTokens = None,
    keep_code: KeepCode = False,
    pad_to_multiple_of: PadTo = None,
    ignore_field: IgnoreField = None,
    carry: Carry = None,
    leave_out: LeaveOut = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    processes: Processes = None,
    text: HeldOut = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove the slice, or only rewrite.")] = True,
    link: Annotated[bool, typer.Option("--link", help="Hard-link untouched shards instead of copying them.")] = False,
    threads: Annotated[int, typer.Option("--threads", help="Threads that write.", min=1)] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Plan, slice and prove in one go, or do what a plan says."""
    choice = _choice(locals())
    from langslice import job

    with _progress(quiet) as report:
        result = job.slice(
            model, out, plan=plan, verify=verify, text=text or (), link=link, overwrite=overwrite, threads=threads,
            report=report, **choice,
        )  # fmt: skip
    if not quiet:
        from langslice.console import print_result

        print_result(result)


@app.command()
def verify(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `langslice slice` made.")],
    text: HeldOut = None,
    json: Json = False,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
) -> None:
    """Compare a slice with the model that it was cut from."""
    from langslice import job

    with _progress(quiet or json) as report:
        proof = job.verify(
            model, out, text=text or (), revision=revision, token=token, cache_dir=cache_dir, report=report
        )
    if json:
        _print_json(proof.to_json())
    elif not quiet:
        from langslice.console import print_proof

        print_proof(proof)
    if not proof.passed:
        raise typer.Exit(code=1)


@app.command()
def count(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.", show_default=False)],
    corpus: Corpus = None,
    text_field: TextField = "text",
    language_id: Annotated[
        str | None,
        _option(
            "--language-id", help="Count only the lines in these languages (needs lingua): ko,en.", metavar="CODES"
        ),
    ] = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    processes: Processes = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing counts.")] = False,
    quiet: Quiet = False,
) -> None:
    """Count a model's tokens in a corpus, for plans to reuse."""
    from langslice import job

    if not corpus:
        raise LangsliceError("no corpus was given", hint="add --corpus PATH")
    _refuse_existing(out, overwrite)
    with _progress(quiet) as report:
        counted = job.count(
            model, corpus, text_field=text_field, languages=language_id or (), revision=revision, token=token,
            cache_dir=cache_dir, processes=processes, report=report,
        )  # fmt: skip
    counted.save(out)
    if not quiet:
        from langslice.console import print_counts

        print_counts(counted, out)


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the slice in this folder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Do the main job on the small model that comes with the package, offline."""
    from langslice import job
    from langslice.console import print_demo, print_inspection, print_result
    from langslice.demo import LANGUAGES, run_demo
    from langslice.mini import mini_model_path

    with _progress(quiet) as report:
        found = job.inspect(mini_model_path(), languages=[",".join(LANGUAGES), "ar,fr"], report=report)
        made = run_demo(out, report)
    print_inspection(found)
    print_result(made.result)
    print_demo(made)


app.command()(evaluate)
app.command()(sweep)
app.command()(reproduce)


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


def _choice(arguments: dict[str, Any]) -> Choice:
    """The entries of Choice among a command's arguments, without those that were not given."""
    from langslice.choice import Choice

    given = {name: arguments[name] for name in Choice.__annotations__ if name in arguments}
    unset = {**dict.fromkeys(given), "text_field": "text"}
    chosen = {
        name: value for name, value in given.items() if value is not False and value != [] and value != unset[name]
    }
    return cast(Choice, chosen)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    from langslice.errors import OutputError

    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="choose another name, or pass --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", hint="make it first")


def _print_json(data: Any) -> None:
    import json

    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """A progress display on stderr: the current step, and bytes where they are counted."""
    if quiet or not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    from langslice.console import live_progress

    with live_progress() as report:
        yield report


if __name__ == "__main__":
    main()
