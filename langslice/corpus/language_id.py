"""Keep the units of a corpus that are in wanted languages, by lingua's statistical detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from langslice.errors import LanguageError

BATCH_UNITS = 1024
LONGEST_SAMPLE = 1000  # characters of a unit that are looked at; the detector's answer does not change with more


@dataclass
class LanguageFilter:
    """What a filter has seen so far."""

    kept: int = 0
    dropped: int = 0


def keep_languages(
    units: Iterable[str],
    languages: Sequence[str],
    *,
    progress: Callable[[int], None] | None = None,
    seen: LanguageFilter | None = None,
) -> Iterator[str]:
    """Yield the units whose most likely language, of all that lingua knows, is a wanted one.

    languages  BCP-47 codes; region and script are ignored (pt-BR is pt), since lingua does not tell them apart
    progress   receives the number of units looked at since its last call
    seen       counts the units kept and dropped, when given
    Raises     LanguageError at once: lingua missing, an unknown code, or a language that lingua does not know
    """
    detector, wanted = _detector(languages)
    return _kept(iter(units), detector, wanted, progress, seen if seen is not None else LanguageFilter())


def _kept(
    units: Iterator[str], detector: Any, wanted: set[Any], progress: Callable[[int], None] | None, seen: LanguageFilter
) -> Iterator[str]:
    while batch := list(islice(units, BATCH_UNITS)):
        found = detector.detect_languages_in_parallel_of([unit[:LONGEST_SAMPLE] for unit in batch])
        kept = [unit for unit, language in zip(batch, found, strict=True) if language in wanted]
        seen.kept += len(kept)
        seen.dropped += len(batch) - len(kept)
        if progress is not None:
            progress(len(batch))
        yield from kept


def _detector(languages: Sequence[str]) -> tuple[Any, set[Any]]:
    """Build a detector of all languages: one of the wanted only would take every other language for one of them."""
    try:
        from lingua import Language, LanguageDetectorBuilder
    except ImportError as error:
        raise LanguageError(
            "--language-id needs the package `lingua-language-detector`", 'pip install "langslice[language-id]"'
        ) from error
    known = {language.iso_code_639_1.name.lower(): language for language in Language.all()}
    wanted = {_known_language(code, known) for code in languages}
    if not wanted:
        raise LanguageError("no language to keep was given", "name some with --languages")
    return LanguageDetectorBuilder.from_all_languages().build(), wanted


def _known_language(code: str, known: dict[str, Any]) -> Any:
    import langcodes

    try:
        language = langcodes.Language.get(code)
    except ValueError as error:
        raise LanguageError(
            f"{code!r} is not a BCP-47 language code", "codes are such as ko, pt-BR or zh-Hant"
        ) from error
    base = language.language or ""
    if base == "no":
        base = "nb"  # lingua knows Norwegian as Bokmål and Nynorsk
    if base not in known:
        raise LanguageError(
            f"language {code!r} is not among those that lingua can identify: {', '.join(sorted(known))}",
            "leave out --language-id, or name a corpus that is in this language",
        )
    return known[base]
