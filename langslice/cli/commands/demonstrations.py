"""`langslice demonstrations`: make the short texts that weight pruning and feature analysis look at a model with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langslice.cli.commands.options import ShowRecipe
from langslice.cli.commands.options import option as _option
from langslice.cli.commands.output import print_recipe, refuse_existing

if TYPE_CHECKING:
    from langslice.demonstrations import Demonstration, Layout


def demonstrations(
    out: Annotated[Path, typer.Option("--out", "-o", help="jsonl file to write.", show_default=False)],
    parallel: Annotated[
        list[str] | None,
        _option(
            "--parallel",
            help="Pairs to show translation with: a .tsv or .jsonl file, a hub dataset, or, given twice, two aligned files.",
            metavar="PATH",
        ),
    ] = None,
    mono: Annotated[
        list[str] | None, _option("--mono", help="Text in one language, as for --corpus of `slice`.", metavar="PATH")
    ] = None,
    code: Annotated[
        list[str] | None, _option("--code", help="Source code: a folder, a file, or jsonl records.", metavar="PATH")
    ] = None,
    languages: Annotated[
        str | None,
        _option(
            "--languages",
            "-l",
            help="Source and target, fr,en, or the one of --mono. Default: the file's name, fr-en.tsv.",
            metavar="CODES",
        ),
    ] = None,
    names: Annotated[
        str | None, _option("--names", help="What the prompts call the languages: French,English.", metavar="NAMES")
    ] = None,
    fields: Annotated[
        str | None,
        _option("--fields", help="Fields of source and target in jsonl records and datasets; the codes by default."),
    ] = None,
    text_field: Annotated[str, typer.Option("--text-field", help="Field of the text, for --mono and --code.")] = "text",
    preset: Annotated[
        str | None, _option("--preset", help="kim2024: the layout of arXiv 2409.16911.", metavar="NAME")
    ] = None,
    shots: Annotated[int | None, _option("--shots", help="Sentences or pairs in each; 4.")] = None,
    count: Annotated[int | None, _option("--count", help="Demonstrations; 100.")] = None,
    separator: Annotated[
        str | None,
        _option("--separator", help="Behind every part; {eos} is the model's own end. A line end by default."),
    ] = None,
    template: Annotated[
        str | None, _option("--template", help='Of every part: "{language}: {text}".', metavar="TEXT")
    ] = None,
    order: Annotated[
        str | None,
        _option("--order", help="file or shuffled; pairs keep the file's, text is shuffled.", metavar="ORDER"),
    ] = None,
    seed: Annotated[int | None, _option("--seed", help="Of the shuffle; 0.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Conversations, for instruction-tuned models.")] = False,
    condition: Annotated[
        str | None, _option("--condition", help="What the demonstrations are called; mt, mono or code.", metavar="NAME")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    show_recipe: ShowRecipe = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
) -> None:
    """Lay out text as demonstrations, for pruning weights and finding features."""
    if show_recipe:
        print_recipe(demonstrations, "demonstrations", None, locals(), name=out)
        return
    from langslice.demonstrations import write_demonstrations

    refuse_existing(out, overwrite)
    given = {
        "shots": shots, "count": count, "separator": separator, "template": template, "order": order, "seed": seed,
    }  # fmt: skip
    layout = _layout(preset, {name: value for name, value in given.items() if value is not None}, chat)
    made = _made(
        {"--parallel": parallel, "--mono": mono, "--code": code}, layout, _listed(languages), _listed(names),
        _listed(fields), text_field, condition,
    )  # fmt: skip
    number = write_demonstrations(made, out)
    if not quiet:
        typer.echo(f"{out}: {number} demonstrations, {made[0].condition}", err=True)


def _listed(text: str | None) -> list[str]:
    return [] if text is None else [item.strip() for item in text.split(",")]


def _layout(preset: str | None, given: dict[str, Any], chat: bool) -> Layout:
    from dataclasses import replace

    from langslice.demonstrations import KIM2024, Layout
    from langslice.errors import CorpusError

    presets = {None: Layout(), "kim2024": KIM2024}
    if preset not in presets:
        raise CorpusError(f"unknown preset {preset!r}", "kim2024 is the only one")
    # A line end, typed in a shell, arrives as a backslash and an n.
    if "separator" in given:
        given["separator"] = given["separator"].replace("\\n", "\n").replace("\\t", "\t")
    return replace(presets[preset], chat=chat, **given)


def _made(
    sources: dict[str, list[str] | None],
    layout: Layout,
    languages: list[str],
    names: list[str],
    fields: list[str],
    text_field: str,
    condition: str | None,
) -> list[Demonstration]:
    from langslice.demonstrations import (
        code_demonstrations,
        parallel_demonstrations,
        read_code,
        read_pairs,
        read_sentences,
        text_demonstrations,
    )
    from langslice.errors import CorpusError

    chosen = [name for name, paths in sources.items() if paths]
    if len(chosen) != 1:
        raise CorpusError(
            f"expected one of --parallel, --mono and --code, found {len(chosen)}", "make one file for each; they add up"
        )
    paths = sources[chosen[0]] or []
    if chosen[0] == "--code":
        return code_demonstrations(read_code(paths, text_field=text_field), layout, condition=condition or "code")
    wanted = 2 if chosen[0] == "--parallel" else 1
    languages = languages or _languages_in_name(paths[0], wanted)
    for option, values in (
        ("--languages", languages),
        ("--names", names or languages),
        ("--fields", fields or languages),
    ):
        if len(values) != wanted and (option != "--fields" or wanted == 2):
            raise CorpusError(
                f"{chosen[0]} needs {wanted} of {option}, found {len(values)}: {','.join(values) or 'none'}",
                "such as --languages fr,en" if wanted == 2 else "such as --languages sw",
            )
    if wanted == 1:
        sentences = read_sentences(paths, text_field=text_field)
        name = names[0] if names else None
        return text_demonstrations(sentences, languages[0], layout, name=name, condition=condition or "mono")
    both = fields or languages
    return parallel_demonstrations(
        read_pairs(paths, (both[0], both[1])), (languages[0], languages[1]), layout,
        names=(names[0], names[1]) if names else None, condition=condition or "mt",
    )  # fmt: skip


def _languages_in_name(path: str, wanted: int) -> list[str]:
    """Codes in a file's name: fr-en.tsv, ko.txt."""
    import re

    stem = Path(path).name.split(".")[0]
    parts = stem.split("-")
    return parts if len(parts) == wanted and all(re.fullmatch(r"[a-z]{2,3}", part) for part in parts) else []
