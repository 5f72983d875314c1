"""Demonstrations of one kind from files: what `langslice demonstrations` writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from langslice.demonstrations.demonstration import Demonstration, write_demonstrations
from langslice.demonstrations.layout import (
    KIM2024,
    Layout,
    code_demonstrations,
    parallel_demonstrations,
    text_demonstrations,
)
from langslice.demonstrations.options import DemonstrationOptions
from langslice.demonstrations.sources import read_code, read_pairs, read_sentences
from langslice.errors import CorpusError
from langslice.files.atomic_output import refuse_existing
from langslice.options import codes, listed, taking

_LAID_OUT = ("shots", "count", "separator", "template", "order", "seed")


@taking(DemonstrationOptions)
def make_demonstrations(
    out: str | Path | None = None, *, options: DemonstrationOptions, overwrite: bool = False
) -> list[Demonstration]:
    """Lay out text as demonstrations, for pruning weights and finding features.

    out        jsonl file to write; none unless given
    options    see DemonstrationOptions; one of parallel, mono and code
    overwrite  replace an existing `out`
    Raises     CorpusError, OutputError
    """
    if out is not None:
        refuse_existing(Path(out), overwrite)
    made = _made(options, _layout(options))
    if out is not None:
        write_demonstrations(made, Path(out))
    return made


def _layout(options: DemonstrationOptions) -> Layout:
    given = {name: getattr(options, name) for name in _LAID_OUT if getattr(options, name) is not None}
    # A line end, typed in a shell, arrives as a backslash and an n.
    if "separator" in given:
        given["separator"] = given["separator"].replace("\\n", "\n").replace("\\t", "\t")
    return replace(KIM2024 if options.preset == "kim2024" else Layout(), chat=options.chat, **given)


def _made(options: DemonstrationOptions, layout: Layout) -> list[Demonstration]:
    sources = {"--parallel": options.parallel, "--corpus": options.mono, "--code": options.code}
    chosen = {name: listed(paths) for name, paths in sources.items() if paths}
    if len(chosen) != 1:
        raise CorpusError(
            f"expected one of --parallel, --corpus and --code, found {len(chosen)}",
            "make one file for each; they add up",
        )
    ((kind, paths),) = chosen.items()
    text_field, condition = options.text_field, options.condition
    if kind == "--code":
        return code_demonstrations(read_code(paths, text_field=text_field), layout, condition=condition or "code")
    languages, names, fields = _called(kind, paths, options)
    if kind == "--corpus":
        sentences = read_sentences(paths, text_field=text_field)
        name = names[0] if names else None
        return text_demonstrations(sentences, languages[0], layout, name=name, condition=condition or "mono")
    both = fields or languages
    return parallel_demonstrations(
        read_pairs(paths, (both[0], both[1])), (languages[0], languages[1]), layout,
        names=(names[0], names[1]) if names else None, condition=condition or "mt",
    )  # fmt: skip


def _called(
    kind: str, paths: Sequence[str], options: DemonstrationOptions
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Languages, what prompts call them, and fields; as many as the kind needs. Raises CorpusError."""
    wanted = 2 if kind == "--parallel" else 1
    languages = codes(options.languages) or _languages_in_name(paths[0], wanted)
    names, fields = codes(options.names), codes(options.fields)
    for option, values in (
        ("--languages", languages),
        ("--names", names or languages),
        ("--fields", fields or languages),
    ):
        if len(values) != wanted and (option != "--fields" or wanted == 2):
            raise CorpusError(
                f"{kind} needs {wanted} of {option}, found {len(values)}: {','.join(values) or 'none'}",
                "such as --languages fr,en" if wanted == 2 else "such as --languages sw",
            )
    return languages, names, fields


def _languages_in_name(path: str, wanted: int) -> tuple[str, ...]:
    """Codes in a file's name: fr-en.tsv, ko.txt."""
    stem = Path(path).name.split(".")[0]
    parts = tuple(stem.split("-"))
    return parts if len(parts) == wanted and all(re.fullmatch(r"[a-z]{2,3}", part) for part in parts) else ()
