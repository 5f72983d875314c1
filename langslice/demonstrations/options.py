"""Options of demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import CorpusError
from langslice.options import Entry, Options

ORDERS: Final = ("file", "shuffled")
PRESETS: Final = ("kim2024",)


@dataclass(frozen=True, kw_only=True)
class DemonstrationOptions(Options):
    """Which text becomes demonstrations, and how it is laid out; what is not given is as the preset has it, or Layout."""

    error = CorpusError

    parallel: Annotated[
        str | Sequence[str],
        Entry(
            "Parallel sentences: a .tsv or .jsonl file, a hub dataset, or, given twice, two aligned files.",
            "PATH",
        ),
    ] = ()
    mono: Annotated[
        str | Sequence[str],
        Entry(
            "Monolingual text: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset.",
            "PATH",
            "-c",
            named="corpus",
            was=("mono",),
        ),
    ] = ()
    code: Annotated[str | Sequence[str], Entry("Source code: a folder, a file, or jsonl records.", "PATH")] = ()
    languages: Annotated[
        str | Sequence[str],
        Entry(
            "Source and target language: fr,en; one language for --corpus. Default: from the file name, fr-en.tsv.",
            "CODES",
            "-l",
            codes=True,
        ),
    ] = ()
    names: Annotated[
        str | Sequence[str], Entry("Names of the languages in the prompts: French,English.", "NAMES", codes=True)
    ] = ()
    fields: Annotated[
        str | Sequence[str],
        Entry(
            "Fields of both sides in jsonl records and datasets: source,target. Default: the codes.",
            "NAMES",
            codes=True,
        ),
    ] = ()
    text_field: Annotated[str, Entry("Text field of jsonl and parquet records.", "NAME")] = "text"
    preset: Annotated[str | None, Entry("Layout of a paper: kim2024 (arXiv 2409.16911).", "NAME", values=PRESETS)] = (
        None
    )
    shots: Annotated[int | None, Entry("Sentences or pairs per demonstration. Default: 4.", "N", least=1)] = None
    count: Annotated[int | None, Entry("Number of demonstrations. Default: 100.", "N", least=1)] = None
    separator: Annotated[
        str | None,
        Entry("Text after each sentence or pair; {eos} is the end-of-text token. Default: a newline.", "TEXT"),
    ] = None
    template: Annotated[str | None, Entry('Format of each sentence. Default: "{language}: {text}".', "TEXT")] = None
    order: Annotated[
        str | None,
        Entry(
            "Order of sentences: file or shuffled. Default: file for pairs, shuffled for text.", "ORDER", values=ORDERS
        ),
    ] = None
    seed: Annotated[int | None, Entry("Seed of the shuffle. Default: 0.", "N")] = None
    chat: Annotated[bool, Entry("Format demonstrations as conversations, for instruction-tuned models.")] = False
    condition: Annotated[str | None, Entry("Name of the condition. Default: mt, mono or code.", "NAME")] = None
