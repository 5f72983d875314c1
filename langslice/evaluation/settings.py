"""What was asked of an evaluation, checked and normalised before anything is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from langslice.errors import LanguageError, TaskError
from langslice.evaluation.choice_tasks import LABEL_SCORES, preset_names
from langslice.evaluation.options import EvaluateOptions
from langslice.options import build, codes
from langslice.vocabulary.languages import parse_languages

BUILT_IN: Final = ("perplexity", "sts", "bitext", "translation", "translation_loss", "rankc", "confusion", "speed")
HARNESS: Final = "lm-eval:"
ALIASES: Final = {"translate": "translation", "korsts": "sts", "kornli": "xnli"}


def make_settings(options: EvaluateOptions | None = None, **given: Any) -> EvaluateOptions:
    """Check and normalise what was asked for: aliases of tasks, codes, pairs as `ko>en`.

    options  or its entries by name
    Raises   TaskError, LanguageError
    """
    asked = build(EvaluateOptions, given) if options is None else options
    tasks = tuple(dict.fromkeys(ALIASES.get(name, name) for name in codes(asked.tasks)))
    languages = tuple(language.tag for language in parse_languages(codes(asked.languages)))
    scores = codes(asked.scores)
    settings = replace(
        asked, tasks=tasks, languages=languages, scores=LABEL_SCORES if scores == ("all",) else scores,
        pairs=tuple(map(_pair_name, codes(asked.pairs))), data=None if asked.data is None else str(asked.data),
    )  # fmt: skip
    if not settings.tasks:
        raise TaskError("no task was given", f"--tasks with some of {', '.join((*BUILT_IN, *preset_names()))}")
    for score in settings.scores:
        if score not in LABEL_SCORES:
            raise TaskError(f"unknown label score {score!r}", f"one of {', '.join(LABEL_SCORES)}, or all")
    if not languages and any(name != "speed" and not name.startswith(HARNESS) for name in settings.tasks):
        raise LanguageError("no language was given", "name some with --languages: ko,en")
    return settings


def _pair_name(text: str) -> str:
    sides = text.split("-") if text.count("-") == 1 else text.split("_") if text.count("_") == 1 else text.split(">")
    found = parse_languages(sides)
    if len(sides) != 2 or len(found) != 2:
        raise LanguageError(
            f"expected two languages, found the pair {text!r}", "a pair looks like ko-en, or zh-Hant>en"
        )
    return ">".join(language.tag for language in found)


def directions(settings: EvaluateOptions) -> list[tuple[str, str]]:
    """Pairs to translate or to retrieve: those asked for, or every language into English."""
    if settings.pairs:
        return [(pair.split(">")[0], pair.split(">")[1]) for pair in settings.pairs]
    found = [(language, "en") for language in settings.languages if language != "en"]
    if not found:
        raise TaskError(
            "no pair of languages to translate", "name a language other than en, or pairs with --pairs ko-en"
        )
    return found
