"""`langslice evaluate`: arguments in, one call of evaluation/main.py, a table and a file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langslice.cli.commands.options import Json, ShowRecipe
from langslice.cli.commands.options import option as _option
from langslice.cli.commands.output import print_json, print_recipe, progress, refuse_existing


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A local folder, a model on the hub, or `mini`.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="A slice of it; without one, the model alone is evaluated.")
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            "-t",
            help="perplexity, xnli, marc, xcopa, belebele, FILE.yaml, sts, bitext, translation, rankc:TASK, confusion, "
            "speed, lm-eval:NAME; several with commas.",
            metavar="NAMES",
        ),
    ] = "perplexity",
    languages: Annotated[str | None, _option("--languages", "-l", help="BCP 47 codes: ko,en.", metavar="CODES")] = None,
    data: Annotated[
        Path | None,
        _option("--data", help="Folder of local data sets; else the package's sentences, and the hub.", metavar="DIR"),
    ] = None,
    results: Annotated[
        Path | None, _option("--out", "-o", help="JSON file to write the results to.", metavar="FILE")
    ] = None,
    limit: Annotated[int | None, _option("--limit", "-n", help="Most items of each task and language.")] = None,
    scores: Annotated[
        str | None,
        _option("--scores", help="Label scores: paper, sum, normalised, first_token, pmi, or all.", metavar="NAMES"),
    ] = None,
    pairs: Annotated[
        str | None, _option("--pairs", help="Directions of translation and bitext: ko-en,en-ko.", metavar="PAIRS")
    ] = None,
    shots: Annotated[int, typer.Option("--shots", help="Demonstrations in a translation prompt; 0 asks.")] = 4,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Most tokens that the model writes.")] = 64,
    available: Annotated[
        bool, typer.Option("--available", help="Leave out languages that a task has no data in, and say so.")
    ] = False,
    hub: Annotated[bool, typer.Option("--hub", help="Read parallel text from the hub (FLORES-200).")] = False,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of the speed measurement.")] = 3,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that the models bring.")
    ] = False,
    resamples: Annotated[int, typer.Option("--resamples", help="Resamples of the bootstrap.", min=100)] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
) -> None:
    """Measure what a model can do in each language, and beside it what its slice still can."""
    if show_recipe:
        print_recipe(evaluate, "evaluate", model, {**locals(), "beside": out, "tasks": tasks})
        return
    from langslice.evaluation.main import evaluate as run

    if results is not None:
        refuse_existing(results, overwrite)
    with progress(quiet or json) as report:
        found = run(
            model, out, tasks=tasks, languages=languages or (), data=data, limit=limit, scores=scores or (),
            pairs=pairs or (), shots=shots, new_tokens=new_tokens,
            available=available, hub=hub, rounds=rounds, device=device, dtype=dtype,
            trust_remote_code=trust_remote_code, resamples=resamples, seed=seed, report=report,
        )  # fmt: skip
    if results is not None:
        found.save(results)
    if json:
        print_json(found.to_json())
    elif not quiet:
        from langslice.evaluation.tables import print_evaluation

        print_evaluation(found)
