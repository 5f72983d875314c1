"""Text that losses are measured on, and apart from it text that the order of dropping is learned from."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langslice.errors import CorpusError, NoDataError
from langslice.options import listed
from langslice.scoring.texts import read_score_texts


@dataclass(frozen=True)
class Texts:
    """Lines by language.

    measured  losses are measured on these
    learned   what tokens cost is learned from these; none of them is measured
    source    where they are from, in words
    """

    measured: Mapping[str, Sequence[str]]
    learned: Mapping[str, Sequence[str]]
    source: str


def read_texts(given: Any, languages: Sequence[str], lines: int) -> Texts:
    """Read and part the lines; of each language as many are measured, and at most as many learned from.

    given   as `loss_texts` takes it; without any, the package's sentences in the languages
    Raises  CorpusError for a language without text, or with fewer than two lines
    """
    if given:
        found, names = read_score_texts(given if isinstance(given, Mapping) else listed(given))
        source = ", ".join(names)
    else:
        found, source = _packaged(languages), "sentences of the package"
    measured, learned = {}, {}
    for language, every in found.items():
        distinct = list(dict.fromkeys(line for line in every if line.strip()))
        if len(distinct) < 2:
            raise CorpusError(f"the text of {language or 'the model'} has fewer than two lines to measure a loss on")
        random.Random(0).shuffle(distinct)
        half = min(lines, (len(distinct) + 1) // 2)
        measured[language], learned[language] = distinct[:half], distinct[half : half + lines]
    return Texts(measured, learned, source)


def _packaged(languages: Sequence[str]) -> dict[str, list[str]]:
    from langslice.evaluation.parallel import read_lines

    if not languages:
        raise CorpusError(
            "no language was named, so there is no text to measure a loss on",
            hint="add --loss-texts FILE, or --languages",
        )
    try:
        return read_lines("perplexity", list(languages), None)
    except NoDataError as error:
        raise CorpusError(
            f"{error.message.splitlines()[0]}: nothing to measure a loss on",
            hint=f"name text with --loss-texts {languages[-1]}=FILE",
        ) from error
