"""Language confusion: does the model answer in the language that it was spoken to in? (Marchisio et al. 2024, arXiv 2406.20052)

    LPR   share of responses without a line that language identification puts in another language; lines of five or more tokens
    WPR   of those, where the script is not Latin, share without an English word
    LCPR  harmonic mean of both
and next to them the share of letters in a script that is not the language's: what slicing the vocabulary acts on directly.

A token is a word between spaces, or, where a script does not write spaces, a letter. English words come from the list of
wordfreq: lower case, more than three letters. lingua identifies languages. A response without a line long enough to be
identified passes; `identified` in the details says how many had one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.codes import one_language
from langslice.evaluation.generation import decode, generate
from langslice.evaluation.loaded_model import Loaded, encode_texts
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.translation import chat_prompt

MIN_TOKENS: Final = 5
MIN_LETTERS: Final = 4
_ENGLISH_WORDS: Final = 50_000
_UNSPACED: Final = frozenset({"Hani", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr"})
# Korean text of today is Hangul; Han characters in it are the confusion that is looked for.
_EVERYDAY: Final = {"ko": frozenset({"Hang"})}
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class ResponseCheck:
    """One response.

    lines            long enough to be identified
    wrong_lines      of these, put in another language
    english          an English dictionary word occurs in it
    letters, foreign letters, and those of a script that is not the language's (Latin included)
    foreign_beyond_latin  of these, the ones that are not Latin
    """

    lines: int
    wrong_lines: int
    english: bool
    letters: int
    foreign: int
    foreign_beyond_latin: int


def check_responses(responses: Sequence[str], language: str, detector: Any = None) -> list[ResponseCheck]:
    """Look at responses that should be in one language.

    detector  of lingua, built once by `language_detector`; built here unless given
    Raises    TaskError without lingua, or for a language that it does not know
    """
    detector = detector if detector is not None else language_detector()
    wanted = _identified_as(language)
    scripts = _scripts(language)
    split = [[line for line in text.splitlines() if _tokens(line) >= MIN_TOKENS] for text in responses]
    flat = [line for lines in split for line in lines]
    identified = iter(detector.detect_languages_in_parallel_of(flat) if flat else [])
    checks = []
    for text, lines in zip(responses, split, strict=True):
        wrong = sum(next(identified) != wanted for _ in lines)
        # Letters that are everyone's, such as the modifier letters of Unicode, are nobody's confusion.
        letters = [found for found in map(_character_scripts, filter(str.isalpha, text)) if found]
        foreign = [found for found in letters if found.isdisjoint(scripts)]
        checks.append(
            ResponseCheck(
                len(lines), wrong, _has_english(text), len(letters), len(foreign),
                sum("Latn" not in found for found in foreign),
            )
        )  # fmt: skip
    return checks


def confusion_measurements(language: str, checks: Sequence[ResponseCheck], **details: Any) -> list[Measurement]:
    """Line and word pass rates, their harmonic mean, and foreign-script rates; word level only for scripts other than Latin."""
    line_ok = np.array([check.wrong_lines == 0 for check in checks], dtype=np.float64)
    word_ok = line_ok * [not check.english for check in checks]
    ones = np.ones_like(line_ok)
    letters = np.array([check.letters for check in checks], dtype=np.float64)
    foreign = np.array([check.foreign for check in checks], dtype=np.float64)
    beyond = np.array([check.foreign_beyond_latin for check in checks], dtype=np.float64)
    details = {**details, "identified": sum(check.lines > 0 for check in checks)}

    def measured(metric: str, statistic: str, columns: Sequence[np.ndarray], better: str = "higher") -> Measurement:
        return Measurement("confusion", language, metric, statistic, np.stack(columns, axis=1), better, details)

    found = [measured("line pass rate", "ratio", [line_ok, ones])]
    if "Latn" not in _scripts(language):
        found.append(measured("word pass rate", "ratio", [word_ok, line_ok]))
        found.append(measured("pass rate, both", "harmonic", [line_ok, ones, word_ok, line_ok]))
        found.append(measured("foreign script, not Latin", "ratio", [beyond, letters], "lower"))
    return [*found, measured("foreign script", "ratio", [foreign, letters], "lower")]


def measure_confusion(
    loaded: Loaded, language: str, prompts: Sequence[str], *, new_tokens: int = 64, detector: Any = None
) -> list[Measurement]:
    """Let the model respond to prompts in a language, and look at the responses.

    prompts  requests for a model with a chat template; for others the beginnings of texts, which it goes on from
    """
    if loaded.kind != "causal":
        raise TaskError("language confusion needs a causal model", "leave `confusion` out")
    chat = bool(getattr(loaded.tokenizer, "chat_template", None))
    ids = [chat_prompt(loaded, text) for text in prompts] if chat else encode_texts(loaded, prompts)
    if loaded.max_length is not None:
        room = loaded.max_length - new_tokens
        if any(len(tokens) > room for tokens in ids):
            loaded.note(f"confusion {language}: prompts beyond {room} tokens were truncated at their beginning")
        ids = [tokens[-room:] for tokens in ids]
    responses = decode(loaded, generate(loaded, ids, new_tokens=new_tokens))
    checks = check_responses(responses, language, detector)
    empty = sum(not text for text in responses)
    return confusion_measurements(language, checks, empty=empty, examples=responses[:3])


def language_detector() -> Any:
    """Detector, by lingua, of all the languages that it knows. Raises TaskError without the package."""
    try:
        from lingua import LanguageDetectorBuilder
    except ImportError as error:
        raise TaskError(
            "confusion needs the package `lingua-language-detector`", 'pip install "langslice[language-id]"'
        ) from error
    return LanguageDetectorBuilder.from_all_languages().build()


def _identified_as(language: str) -> Any:
    from lingua import Language

    known = {each.iso_code_639_1.name.lower(): each for each in Language.all()}
    base = language.split("-")[0]
    base = {"no": "nb"}.get(base, base)  # lingua knows Norwegian as Bokmål and Nynorsk
    if base not in known:
        raise TaskError(
            f"task confusion: lingua does not know the language {language}\n  it knows {', '.join(sorted(known))}",
            "leave the language out",
        )
    return known[base]


def _scripts(language: str) -> frozenset[str]:
    return _EVERYDAY.get(language, frozenset(one_language(language).scripts))


def _character_scripts(character: str) -> frozenset[str]:
    from langslice.vocabulary.unicode_scripts import scripts_of_character

    return scripts_of_character(character)


def _tokens(line: str) -> int:
    """Words of a line, or letters where a script writes no spaces."""
    return sum(sum(not _UNSPACED.isdisjoint(_character_scripts(c)) for c in word) or 1 for word in line.split())


@lru_cache(maxsize=1)
def _english_words() -> frozenset[str]:
    import wordfreq

    return frozenset(word for word in wordfreq.top_n_list("en", _ENGLISH_WORDS) if len(word) >= MIN_LETTERS)


def _has_english(text: str) -> bool:
    return any(word.islower() and word in _english_words() for word in _WORD.findall(text))
