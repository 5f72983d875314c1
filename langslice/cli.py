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
from langslice.commands.demonstrations import demonstrations
from langslice.commands.evaluate import evaluate
from langslice.commands.features import features
from langslice.commands.options import option as _option
from langslice.commands.reproduce import reproduce
from langslice.commands.score import score as score_command
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
Layers = Annotated[
    list[str] | None, _option("--layers", help="Layers to keep: 0-3,8-11; encoder.0-3 where there are two stacks.")
]
DropLayers = Annotated[list[str] | None, _option("--drop-layers", help="Layers to drop: 4-7, decoder.2.")]
FirstLayers = Annotated[list[str] | None, _option("--first-layers", help="Keep the first N layers: 4, decoder.4.")]
EveryLayer = Annotated[list[str] | None, _option("--every-layer", help="Keep every K-th layer, from the first.")]
DropHeads = Annotated[
    list[str] | None,
    _option("--drop-heads", help="Attention heads to drop, LAYER:HEADS: 3:0,5, decoder.cross.2:1.", metavar="WHERE"),
]
DropNeurons = Annotated[
    list[str] | None,
    _option("--drop-neurons", help="Feed-forward neurons to drop, LAYER:NEURONS: 3:0-99.", metavar="WHERE"),
]
DropLayersBy = Annotated[
    list[str] | None,
    _option("--drop-layers-by", help="Drop the lowest-scored layers: block-influence:4, layers.parquet:4."),
]
HeadsSparsity = Annotated[float | None, _option("--heads-sparsity", help="Share of heads to drop by score: 0.25.")]
HeadsBy = Annotated[
    str | None, _option("--heads-by", help="Method of `langslice score`, or its file; gradient with text, else l2.")
]
NeuronsSparsity = Annotated[float | None, _option("--neurons-sparsity", help="Share of neurons to drop by score: 0.2.")]
NeuronsBy = Annotated[
    str | None, _option("--neurons-by", help="Method of `langslice score`, or its file; activation with text, else l2.")
]
LanguageNeurons = Annotated[
    bool, _option("--language-neurons", help="Drop neurons and heads that serve only languages outside --languages.")
]
ScoreTexts = Annotated[
    list[str] | None,
    _option("--score-texts", help="Text to measure scores on; ko=ko.txt says its language.", metavar="[CODE=]PATH"),
]
Even = Annotated[bool, _option("--even", help="Drop equally many in every layer, so that stock code can express it.")]
PruneRows = Annotated[
    list[str] | None,
    _option(
        "--prune-rows",
        help='Set the lowest rows of linears to zero: "encoder.layer.*.attention.self.query=0.2:l1".',
        metavar="PATTERN=SHARE",
    ),
]
Sparsity = Annotated[
    float | None, _option("--sparsity", help="Share of the weights of each linear layer to set to zero: 0.3.")
]
Pattern = Annotated[
    str | None, _option("--pattern", help="N:M zeroes N of every M inputs of an output: 2:4.", metavar="N:M")
]
KeepDemos = Annotated[
    list[str] | None,
    _option(
        "--keep-demos", help="Demonstrations that weights are kept for (`langslice demonstrations`).", metavar="FILE"
    ),
]
AvoidDemos = Annotated[
    list[str] | None,
    _option("--avoid-demos", help="Demonstrations that count against a weight, such as code.", metavar="FILE"),
]
Score = Annotated[
    str | None,
    _option("--score", help="wanda, magnitude, random, top or sparsegpt; wanda unless given.", metavar="NAME"),
]
Epsilon = Annotated[float | None, _option("--epsilon", help="Added to what --avoid-demos divide by: 1e-6.")]
Allocation = Annotated[
    str | None,
    _option("--allocation", help='uniform, outliers, or shares by pattern: "*.mlp.*=0.4".', metavar="HOW"),
]
Linears = Annotated[
    list[str] | None,
    _option("--linears", help='Linear layers to prune: "*.mlp.*"; "!*.0.*" leaves some out.', metavar="PATTERN"),
]
Offload = Annotated[bool, _option("--offload", help="Keep activations on disk while weights are pruned.")]
OutputStyle = Annotated[
    str | None,
    _option(
        "--output-style",
        help="stock (plain config), sliced (sizes by layer, own code) or masked (zeros); by default what fits.",
        metavar="STYLE",
    ),
]
ReplicateKv = Annotated[
    bool, _option("--replicate-kv", help="Give query heads key-value heads of their own where groups become uneven.")
]
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
Ray = Annotated[
    str | None, _option("--ray", help="Use this Ray cluster: auto, host:port, ray://…, or local.", metavar="ADDRESS")
]
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
    layers: Layers = None,
    drop_layers: DropLayers = None,
    first_layers: FirstLayers = None,
    every_layer: EveryLayer = None,
    drop_layers_by: DropLayersBy = None,
    drop_heads: DropHeads = None,
    heads_sparsity: HeadsSparsity = None,
    heads_by: HeadsBy = None,
    drop_neurons: DropNeurons = None,
    neurons_sparsity: NeuronsSparsity = None,
    neurons_by: NeuronsBy = None,
    language_neurons: LanguageNeurons = False,
    score_texts: ScoreTexts = None,
    even: Even = False,
    prune_rows: PruneRows = None,
    sparsity: Sparsity = None,
    pattern: Pattern = None,
    keep_demos: KeepDemos = None,
    avoid_demos: AvoidDemos = None,
    score: Score = None,
    epsilon: Epsilon = None,
    allocation: Allocation = None,
    linears: Linears = None,
    offload: Offload = False,
    output_style: OutputStyle = None,
    replicate_kv: ReplicateKv = False,
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
    layers: Layers = None,
    drop_layers: DropLayers = None,
    first_layers: FirstLayers = None,
    every_layer: EveryLayer = None,
    drop_layers_by: DropLayersBy = None,
    drop_heads: DropHeads = None,
    heads_sparsity: HeadsSparsity = None,
    heads_by: HeadsBy = None,
    drop_neurons: DropNeurons = None,
    neurons_sparsity: NeuronsSparsity = None,
    neurons_by: NeuronsBy = None,
    language_neurons: LanguageNeurons = False,
    score_texts: ScoreTexts = None,
    even: Even = False,
    prune_rows: PruneRows = None,
    sparsity: Sparsity = None,
    pattern: Pattern = None,
    keep_demos: KeepDemos = None,
    avoid_demos: AvoidDemos = None,
    score: Score = None,
    epsilon: Epsilon = None,
    allocation: Allocation = None,
    linears: Linears = None,
    offload: Offload = False,
    output_style: OutputStyle = None,
    replicate_kv: ReplicateKv = False,
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
    ray: Ray = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Plan, slice and prove in one go, or do what a plan says."""
    choice = _choice(locals())
    from langslice import job

    with _progress(quiet) as report:
        result = job.slice(
            model, out, plan=plan, verify=verify, text=text or (), link=link, overwrite=overwrite, threads=threads,
            ray=ray, report=report, **choice,
        )  # fmt: skip
    if not quiet:
        from langslice.console import print_result

        print_result(result)


@app.command()
def mask(
    model: Model,
    out: Out,
    drop_heads: DropHeads = None,
    heads_sparsity: HeadsSparsity = None,
    heads_by: HeadsBy = None,
    drop_neurons: DropNeurons = None,
    neurons_sparsity: NeuronsSparsity = None,
    neurons_by: NeuronsBy = None,
    score_texts: ScoreTexts = None,
    prune_rows: PruneRows = None,
    text: HeldOut = None,
    carry: Carry = None,
    leave_out: LeaveOut = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove the result, or only write.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Zero heads and neurons instead of removing them: same shapes, any client."""
    choice = _choice(locals())
    choice["output_style"] = "masked"
    from langslice import job

    with _progress(quiet) as report:
        result = job.slice(model, out, verify=verify, text=text or (), overwrite=overwrite, report=report, **choice)
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
    ray: Ray = None,
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
            cache_dir=cache_dir, processes=processes, ray=ray, report=report,
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


app.command(name="score")(score_command)
app.command()(demonstrations)
app.command()(features)
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
    from langslice.staging import check_writable

    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", hint="choose another name, or pass --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", hint="make it first")
    check_writable(path.parent)


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
