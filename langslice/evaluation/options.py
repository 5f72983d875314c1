"""How to evaluate: what a user asks for, checked and normalised before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from langslice.errors import LanguageError, TaskError
from langslice.evaluation.choice_tasks import LABEL_SCORES, preset_names
from langslice.evaluation.loaded_model import DTYPES
from langslice.options import codes
from langslice.vocabulary.languages import parse_languages

BUILT_IN: Final = ("perplexity", "sts", "bitext", "translation", "rankc", "confusion", "speed")
HARNESS: Final = "lm-eval:"
ALIASES: Final = {"translate": "translation", "korsts": "sts", "kornli": "xnli"}
# Lines that a task uses unless a limit is given: all of NTREX-128 would take hours.
LINES: Final = {"perplexity": 500, "bitext": 1000, "confusion": 100, "translation": 200}


@dataclass(frozen=True)
class Settings:
    """How to evaluate; every entry is recorded in the results.

    tasks       names of built-in tasks and presets, YAML files, `rankc:TASK`, `lm-eval:NAME`
    languages   codes
    data        folder of local data sets; without one, the package's sentences and the hub
    limit       most items of a task and language
    scores      label scores of zero-shot tasks, of LABEL_SCORES; each task's own where empty
    pairs       directions such as `ko>en` of translation and bitext; every language into English where empty
    shots       demonstrations of a translation prompt
    new_tokens  most tokens to write
    separator   what ends a line of a translation prompt; `eos` for the end-of-text token
    available   leave out languages for which a task has no data, and say so, instead of refusing
    reference   of RankC, also the figure that the code of Kim et al. 2024 computes
    hub         read parallel text from the hub instead of the package
    rounds      of the speed measurement
    """

    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    data: str | None = None
    limit: int | None = None
    scores: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    shots: int = 4
    new_tokens: int = 64
    separator: str = "\n"
    available: bool = False
    reference: bool = False
    hub: bool = False
    rounds: int = 3
    device: str = "auto"
    dtype: str = "float32"
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """The data folder."""
        return None if self.data is None else Path(self.data).expanduser()

    def lines(self, task: str) -> int:
        """How many lines a task uses."""
        return self.limit if self.limit is not None else LINES[task]


def make_settings(**given: Any) -> Settings:
    """Check and normalise what was asked for.

    Raises  TaskError, LanguageError
    """
    tasks = tuple(ALIASES.get(name, name) for name in codes(given.pop("tasks")))
    asked = given.pop("languages")
    languages = tuple(language.tag for language in parse_languages(codes(asked)))
    scores = codes(given.pop("scores", ()))
    scores = LABEL_SCORES if scores == ("all",) else scores
    data = given.pop("data", None)
    settings = Settings(
        tasks=tuple(dict.fromkeys(tasks)), languages=languages, scores=scores,
        pairs=tuple(map(_pair_name, codes(given.pop("pairs", ())))), data=None if data is None else str(data), **given,
    )  # fmt: skip
    if not settings.tasks:
        raise TaskError("no task was given", f"--tasks with some of {', '.join((*BUILT_IN, *preset_names()))}")
    for score in settings.scores:
        if score not in LABEL_SCORES:
            raise TaskError(f"unknown label score {score!r}", f"one of {', '.join(LABEL_SCORES)}, or all")
    if settings.dtype not in DTYPES:
        raise TaskError(f"unknown precision {settings.dtype!r}", f"one of {', '.join(DTYPES)}")
    for name, least in (("limit", 1), ("shots", 0), ("new_tokens", 1), ("rounds", 1)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise TaskError(f"--{name.replace('_', '-')} must be at least {least}, found {value}", None)
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


def directions(settings: Settings) -> list[tuple[str, str]]:
    """Pairs to translate or to retrieve: those asked for, or every language into English."""
    if settings.pairs:
        return [(pair.split(">")[0], pair.split(">")[1]) for pair in settings.pairs]
    found = [(language, "en") for language in settings.languages if language != "en"]
    if not found:
        raise TaskError("no pair of languages to translate", "name a language beside en, or pairs with --pairs ko-en")
    return found
