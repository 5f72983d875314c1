"""The units of a corpus, or only those in some languages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langslice.corpus.units import read_texts
from langslice.progress import Report, adding_up, silent


def corpus_units(
    corpus: Sequence[str], *, text_field: str, languages: Sequence[str], report: Report = silent
) -> Iterable[str]:
    """Stream the units of a corpus, only those in `languages` where languages are given."""
    units: Iterable[str] = read_texts(corpus, text_field=text_field, progress=adding_up(report, "reading text", 0))
    if not languages:
        return units
    from langslice.corpus.language_id import keep_languages

    return keep_languages(units, languages)
