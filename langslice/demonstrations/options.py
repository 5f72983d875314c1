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
            "Pairs to show translation with: a .tsv or .jsonl file, a hub dataset, or, given twice, two aligned files.",
            "PATH",
        ),
    ] = ()
    mono: Annotated[str | Sequence[str], Entry("Text in one language, as for --corpus of `slice`.", "PATH")] = ()
    code: Annotated[str | Sequence[str], Entry("Source code: a folder, a file, or jsonl records.", "PATH")] = ()
    languages: Annotated[
        str | Sequence[str],
        Entry(
            "Source and target, fr,en, or the one of --mono. Default: the file's name, fr-en.tsv.",
            "CODES",
            "-l",
            codes=True,
        ),
    ] = ()
    names: Annotated[
        str | Sequence[str], Entry("What the prompts call the languages: French,English.", "NAMES", codes=True)
    ] = ()
    fields: Annotated[
        str | Sequence[str],
        Entry("Fields of source and target in jsonl records and datasets; the codes by default.", codes=True),
    ] = ()
    text_field: Annotated[str, Entry("Field of the text, for --mono and --code.")] = "text"
    preset: Annotated[str | None, Entry("kim2024: the layout of arXiv 2409.16911.", "NAME", values=PRESETS)] = None
    shots: Annotated[int | None, Entry("Sentences or pairs in each; 4.", least=1)] = None
    count: Annotated[int | None, Entry("Demonstrations; 100.", least=1)] = None
    separator: Annotated[
        str | None, Entry("Behind every part; {eos} is the model's own end. A line end by default.")
    ] = None
    template: Annotated[str | None, Entry('Of every part: "{language}: {text}".', "TEXT")] = None
    order: Annotated[
        str | None, Entry("file or shuffled; pairs keep the file's, text is shuffled.", "ORDER", values=ORDERS)
    ] = None
    seed: Annotated[int | None, Entry("Of the shuffle; 0.")] = None
    chat: Annotated[bool, Entry("Conversations, for instruction-tuned models.")] = False
    condition: Annotated[str | None, Entry("What the demonstrations are called; mt, mono or code.", "NAME")] = None
