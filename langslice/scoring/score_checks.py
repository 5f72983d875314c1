"""Whether scores are of the kind, the model and the languages that a choice asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langslice.errors import LanguageError, PlanError, ScoreError
from langslice.scoring.table import Scores, Values


def check_scores(scores: Scores, kind: str, share: float) -> None:
    """Refuse scores of another kind, and a share that is none."""
    if scores.kind != kind:
        raise ScoreError(
            f"these are scores of {scores.kind}, and {kind} are to be chosen", hint=f"langslice score MODEL {kind}"
        )
    if not 0 <= share < 1:
        raise PlanError(f"cannot drop a share of {share:g} of the {kind}", hint="a share is at least 0 and below 1")


def check_fit(values: Values, sizes: Mapping[str, Mapping[int, int]]) -> None:
    """Refuse scores that are not of so many parts in each layer.

    values   place -> layer -> (parts,)
    sizes    place -> layer -> how many there are
    Raises   ScoreError
    """
    found = {place: {layer: len(row) for layer, row in layers.items()} for place, layers in values.items()}
    expected = {place: dict(layers) for place, layers in sizes.items() if layers}
    if found != expected:
        place = next(place for place in {**found, **expected} if found.get(place) != expected.get(place))
        raise ScoreError(
            f"scores from another model: at {place} they have {found.get(place, 'nothing')}, "
            f"the model has {expected.get(place, 'nothing')}",
            hint="score this model with `langslice score`",
        )


def by_language(
    scores: Scores, keep_languages: Sequence[str], sizes: Mapping[str, Mapping[int, int]]
) -> tuple[list[str], dict[str, Values]]:
    """Scored languages that are not kept, and the scores of every language: language -> place -> layer -> (parts,).

    sizes    as for `check_fit`
    Raises   as other_languages and check_fit
    """
    others = other_languages(scores, keep_languages)
    tables = {language: scores.values(language) for language in scores.languages}
    check_fit(tables[scores.languages[0]], sizes)
    return others, tables


def other_languages(scores: Scores, keep_languages: Sequence[str]) -> list[str]:
    """Scored languages that are not kept.

    Raises   LanguageError for a kept language without scores, or when none is left
    """
    refuse_unscored(scores, keep_languages)
    others = [language for language in scores.languages if language not in keep_languages]
    if not others:
        raise LanguageError(
            "every scored language is kept, so nothing serves only another one",
            hint="score with text of languages that are to go",
        )
    return others


def refuse_unscored(scores: Scores, keep_languages: Sequence[str]) -> None:
    """Refuse languages to keep of which there are no scores, or none at all. Raises LanguageError."""
    have = scores.languages
    missing = [language for language in keep_languages if language not in have]
    if missing or not keep_languages:
        what = f"no scores for `{missing[0]}`" if missing else "no language to keep was named"
        raise LanguageError(
            f"{what}; there are scores for {', '.join(have) or 'no language'}",
            hint="score with --calibration CODE=FILE for every language",
        )
