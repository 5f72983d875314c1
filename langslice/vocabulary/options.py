"""Options of a vocabulary: by which criteria tokens stay, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import PlanError
from langslice.options import Corpus, Entry, Options, TextField


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions(Options):
    """Which tokens stay. Every option adds to the others; where several values are taken, one may stand alone."""

    error = PlanError

    languages: Annotated[
        str | Sequence[str],
        Entry("BCP 47 codes: ko,en. Evidence is each language's word list.", "CODES", "-l", codes=True),
    ] = ()
    corpus: Corpus = ()
    text_field: TextField = "text"
    counts: Annotated[
        str | Sequence[str], Entry("Counts made by `langslice count`; FILE=0.5 weighs them.", "FILE")
    ] = ()
    language_id: Annotated[
        bool, Entry("Keep only the corpus lines that are in the wanted languages (needs lingua).")
    ] = False
    lexicon: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Words to keep whole, one a line, optionally a tab and a weight.", "FILE"),
    ] = ()
    scripts: Annotated[
        str | Sequence[str], Entry("Keep every token of these scripts: Hang,Latn.", "CODES", codes=True)
    ] = ()
    drop_scripts: Annotated[
        str | Sequence[str], Entry("Drop the tokens of these scripts, whatever the evidence.", "CODES", codes=True)
    ] = ()
    coverage: Annotated[
        float | None,
        Entry(
            "Cut rare tokens: keep the most frequent that make up this share of running text, such as 0.99.",
            "SHARE",
            least=0,
            most=1,
        ),
    ] = None
    min_count: Annotated[int | None, Entry("Least count in the corpus of a token kept for it.", "N", least=0)] = None
    max_vocab: Annotated[int | None, Entry("Most tokens in the result.", "N", least=1)] = None
    max_size: Annotated[
        int | str | None,
        Entry("Most bytes of the written weights, such as 150MB or 1.5GiB; rare tokens go until they fit.", "SIZE"),
    ] = None
    top_k: Annotated[int | None, Entry("Most tokens from each piece of evidence.", "N", least=1)] = None
    keep_tokens: Annotated[str | Path | Sequence[str | Path], Entry("Tokens to keep, one a line.", "FILE")] = ()
    only_tokens: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Keep exactly these tokens and what they cannot do without: one a line, or a tokenizer.json.", "FILE"),
    ] = ()
    keep_text: Annotated[
        str | Sequence[str],
        Entry('Text that the model is always called with, such as "query: ": its tokens stay.', "TEXT"),
    ] = ()
    keep_all_language_codes: Annotated[
        bool, Entry("Keep the codes of all languages, such as <2fr>, not those of --languages alone.")
    ] = False
    drop_reserved: Annotated[
        bool, Entry("Drop tokens held in reserve, such as <unused7>, where nothing refers to them.")
    ] = False
    keep_code: Annotated[bool, Entry("Keep indentation, operators and identifiers of source code.")] = False
