"""Options of a vocabulary: which tokens are kept, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Corpus, Entry, Options, TextField

ROW_SOURCES: Final = ("pieces", "similar")


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions(Options):
    """Which tokens stay. Every option adds to the others; where several values are taken, one may stand alone."""

    error = PlanError
    group = "Vocabulary"

    languages: Annotated[
        str | Sequence[str],
        Entry(
            "Languages to keep, as BCP 47 codes: ko,en. Tokens come from each language's word list.",
            "CODES",
            "-l",
            codes=True,
            common=True,
        ),
    ] = ()
    corpus: Corpus = ()
    text_field: TextField = "text"
    counts: Annotated[
        str | Sequence[str],
        Entry("Token counts made by `langslice count`; FILE=0.5 weights them.", "FILE", common=True),
    ] = ()
    language_id: Annotated[
        bool, Entry("Count only the lines of --corpus that are in one of --languages (needs lingua).")
    ] = False
    lexicon: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Words to keep whole, one per line; optionally a tab and a weight.", "FILE"),
    ] = ()
    scripts: Annotated[
        str | Sequence[str], Entry("Keep every token of these scripts: Hang,Latn.", "CODES", codes=True, common=True)
    ] = ()
    drop_scripts: Annotated[
        str | Sequence[str],
        Entry("Drop the tokens of these scripts, even those that other options keep.", "CODES", codes=True),
    ] = ()
    coverage: Annotated[
        float | None,
        Entry(
            "Drop rare tokens: keep the most frequent ones, which make up this share of running text: 0.99.",
            "SHARE",
            least=0,
            most=1,
            common=True,
        ),
    ] = None
    min_count: Annotated[int | None, Entry("Minimum count of a token in the corpus.", "N", least=0)] = None
    max_vocab: Annotated[
        int | None, Entry("Maximum vocabulary size of the result, new tokens aside.", "N", least=1, common=True)
    ] = None
    max_size: Annotated[
        int | str | None,
        Entry(
            "Maximum size of the written weights: 150MB, 1.5GiB. Rare tokens are dropped until they fit.",
            "SIZE",
            common=True,
        ),
    ] = None
    top_k: Annotated[
        int | None, Entry("Maximum number of tokens from each word list, corpus or file of counts.", "N", least=1)
    ] = None
    keep_tokens: Annotated[str | Path | Sequence[str | Path], Entry("Tokens to keep, one per line.", "FILE")] = ()
    only_tokens: Annotated[
        str | Path | Sequence[str | Path],
        Entry(
            "Keep exactly these tokens and those that they are built from: one per line, or a tokenizer.json.", "FILE"
        ),
    ] = ()
    keep_text: Annotated[
        str | Sequence[str],
        Entry('Text of every prompt, such as "query: "; its tokens are kept.', "TEXT"),
    ] = ()
    keep_all_language_codes: Annotated[
        bool, Entry("Keep the codes of all languages, such as <2fr>, not only those of --languages.")
    ] = False
    drop_reserved: Annotated[bool, Entry("Drop reserved tokens, such as <unused7>, that nothing refers to.")] = False
    keep_code: Annotated[bool, Entry("Keep the indentation, operators and identifiers of source code.")] = False


@dataclass(frozen=True, kw_only=True)
class ExtensionOptions(Options):
    """Which tokens the vocabulary is to have besides those that stay."""

    error = PlanError
    group = "Vocabulary"

    extend: Annotated[
        str | Path | Sequence[str | Path],
        Entry("New tokens, one per line; those of BPE come with the merges that lead to them.", "FILE"),
    ] = ()
    extend_corpus: Annotated[
        str | Path | Sequence[str | Path],
        Entry("Text whose frequent words become new tokens; files as for --corpus. Needs --extend-to.", "PATH"),
    ] = ()
    extend_to: Annotated[
        int | str | None,
        Entry("Vocabulary size that tokens of --extend-corpus fill up; +500 adds 500 to whatever stays.", "SIZE"),
    ] = None
    extend_rows: Annotated[
        str | None,
        Entry(
            "What the row of a new token is the mean of: pieces (its own) or similar (tokens that the text of --extend-corpus "
            "uses alike, by likeness). Default: pieces.",
            "ROWS",
            values=ROW_SOURCES,
        ),
    ] = None
