"""Which tokens the words of a language need, weighed by how frequent the words are.

Words come from wordfreq (Speer 2022, built from Wikipedia, subtitles, news, books and the web) or from the user's own
files. Each word is encoded in the surroundings in which text has it: after a space, at the start of a line, behind a
bracket, quote or hyphen, with a capital, in capitals. Words of equal frequency are joined into one text, so that
100,000 words take a few hundred encodings for each form.

wordfreq stores words case-folded and stripped, so the spellings that text really has are restored first: German ß,
Greek final sigma, Turkish capitals, the curved apostrophe, Indic letters that Unicode normalisation takes apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.choose.languages import Language, word_list_code
from langslice.choose.scripts import scripts_of_character
from langslice.errors import CorpusError, LanguageError
from langslice.tokenizer import SourceTokenizer

WORD_LIMIT: Final = 100_000
CAPITALS_LIMIT: Final = 20_000
WORDS_A_TEXT: Final = 200
ANCHOR: Final = "0"  # stands before the first word of a text; digits are kept in any case

CASED: Final = frozenset({"Latn", "Cyrl", "Grek", "Armn", "Geor", "Copt", "Glag"})

# Languages that join words with an apostrophe: l’été, dell’arte, l’home.
ELIDING: Final = frozenset({"fr", "it", "ca"})

Weights = np.ndarray[Any, np.dtype[np.float64]]
WordGroups = Sequence[tuple[float, Sequence[str]]]


@dataclass(frozen=True)
class Form:
    """One surrounding of a word.

    before     text between the previous word and this one
    spelling   "plain", "capitalised" or "capitals"
    share      estimated occurrences of the form for each plain occurrence of the word; it orders tokens, no more
    """

    before: str
    spelling: str
    share: float


SPACED: Final = (Form(" ", "plain", 1.0), Form(" ", "capitalised", 0.2), Form(" ", "capitals", 0.01))
STARTS: Final = (Form("\n", "plain", 0.05), Form("\n", "capitalised", 0.1), Form("\n", "capitals", 0.005))
BRACKETED: Final = (Form(" (", "plain", 0.05), Form(" (", "capitalised", 0.05), Form(" (", "capitals", 0.005))
PUNCTUATED: Final = (
    Form('\n"', "plain", 0.01),
    Form('\n"', "capitalised", 0.02),
    Form("\n“", "capitalised", 0.01),
    Form("\n(", "plain", 0.01),
    Form("\n(", "capitalised", 0.01),
    Form("-", "plain", 0.01),
    Form("-", "capitalised", 0.01),
)
ELIDED: Final = (Form("’", "plain", 0.05), Form("'", "plain", 0.05), Form("’", "capitalised", 0.01))


def language_words(language: Language, *, limit: int = WORD_LIMIT) -> list[tuple[float, list[str]]]:
    """The most frequent words of a language, as groups of (frequency per word, words of that frequency).

    Words with a digit, and words with a character of another script, are left out: wordfreq's lists hold both.
    Raises  LanguageError when there is no list
    """
    import wordfreq

    code = word_list_code(language.tag)
    if code is None:
        raise LanguageError(f"there is no lexicon for {language.name} ({language.tag})")
    wanted = frozenset(language.scripts)
    groups: list[tuple[float, list[str]]] = []
    left = limit
    for centibels, words in enumerate(wordfreq.get_frequency_list(code)):
        fitting = [word for word in words if _fits(word, wanted)][:left]
        if fitting:
            groups.append((10.0 ** (-centibels / 100), restore_spelling(fitting, language)))
            left -= len(fitting)
        if left <= 0:
            break
    return groups


def restore_spelling(words: Iterable[str], language: Language) -> list[str]:
    """Add the spellings that case-folding and normalisation removed ("strasse" -> "strasse", "straße" for German).

    Every word stays; the restored ones follow it.
    """
    code = language.tag.split("-")[0]
    restored: dict[str, None] = {}
    for word in words:
        restored[word] = None
        if code == "de" and "ss" in word:
            restored[word.replace("ss", "ß")] = None
        if code == "el" and word.endswith("σ"):
            restored[word[:-1] + "ς"] = None
        if "'" in word:
            restored[word.replace("'", "’")] = None
        if code == "sr" and "Cyrl" in language.scripts:
            restored[serbian_cyrillic(word)] = None
        if language.scripts == ("Arab",) and word.endswith("ا"):
            restored[word[:-1] + "ًا"] = None
            restored[word + "ً"] = None
        joined = recompose(word)
        if joined != word:
            restored[joined] = None
    return list(restored)


def serbian_cyrillic(word: str) -> str:
    """Serbian in Latin letters to Cyrillic: "ljubav" -> "љубав"."""
    for latin, cyrillic in (("lj", "љ"), ("nj", "њ"), ("dž", "џ")):
        word = word.replace(latin, cyrillic)
    return word.translate(str.maketrans("abvgdđežzijklmnoprstćufhcčš", "абвгдђежзијклмнопрстћуфхцчш"))


@lru_cache(maxsize=1)
def _excluded_compositions() -> tuple[tuple[str, str], ...]:
    """Indic letters that normalisation always takes apart but that text holds whole: (apart, whole)."""
    letters = (chr(code) for code in range(0x900, 0xE00))
    pairs = [(unicodedata.normalize("NFC", letter), letter) for letter in letters]
    return tuple((apart, whole) for apart, whole in pairs if apart != whole and len(apart) > 1)


def recompose(word: str) -> str:
    """Put letters together that Unicode normalisation form C takes apart: "ड" + nukta -> "ड़"."""
    if word.isascii() or not any("\u0900" <= character < "\u0e00" for character in word):
        return word
    for apart, whole in _excluded_compositions():
        word = word.replace(apart, whole)
    return word


def read_lexicon(path: Path) -> list[tuple[float, list[str]]]:
    """Words of a user's file, one a line, optionally `word<TAB>weight` (default 1); groups as in language_words.

    Raises  CorpusError for a missing or empty file, invalid UTF-8, or a weight that is not a positive number
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise CorpusError(f"cannot read the lexicon {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"the lexicon {path} is not valid UTF-8 (byte {error.start})", hint="convert it to UTF-8"
        ) from error
    by_weight: dict[float, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        word, _, weight = line.partition("\t")
        if word.strip():
            by_weight.setdefault(_weight(weight, path, number), []).append(word.strip())
    if not by_weight:
        raise CorpusError(f"the lexicon {path} holds no word", hint="write one word a line, UTF-8")
    return [(weight, by_weight[weight]) for weight in sorted(by_weight, reverse=True)]


def _weight(text: str, path: Path, number: int) -> float:
    try:
        weight = float(text) if text.strip() else 1.0
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise CorpusError(
            f"{path}, line {number}: {text.strip()!r} is not a positive weight", hint="write word<TAB>weight, or a word"
        )
    return weight


def forms_for(tokenizer: SourceTokenizer, *, scripts: Iterable[str], code: str = "") -> tuple[Form, ...]:
    """The surroundings that make a difference to a kind of tokenizer, for the scripts of a language.

    WordPiece cuts at punctuation, so a word is the same everywhere. Unigram and Marian turn a line end into a space,
    and join nothing with punctuation: a bracket stands for every place without a space. SentencePiece BPE keeps line
    ends. Only byte-level vocabularies hold tokens of punctuation and letters ('"The', "-year", "’est").
    """
    forms = SPACED
    if tokenizer.kind == "byte-bpe":
        forms = SPACED + STARTS + PUNCTUATED + (ELIDED if code.split("-")[0] in ELIDING else ())
    elif tokenizer.kind in ("unigram", "marian"):
        forms = SPACED + BRACKETED
    elif tokenizer.kind != "wordpiece":
        forms = SPACED + STARTS
    if not CASED & set(scripts):
        forms = tuple(form for form in forms if form.spelling == "plain")
    return forms


def weigh_words(tokenizer: SourceTokenizer, groups: WordGroups, forms: Sequence[Form], *, code: str = "") -> Weights:
    """Occurrences of each token when every word occurs as often as its frequency says, in all forms: (size,).

    groups  (frequency, words) as language_words returns them
    code    language, for the rules of capital letters
    """
    weights = np.zeros(len(tokenizer.tokens), dtype=np.float64)
    for form in forms:
        texts: list[str] = []
        values: list[float] = []
        for frequency, words in _spelled(groups, form.spelling, code):
            for start in range(0, len(words), WORDS_A_TEXT):
                texts.append(ANCHOR + form.before + form.before.join(words[start : start + WORDS_A_TEXT]))
                values.append(frequency * form.share)
        _add_counts(weights, tokenizer.encode(texts), values)
    return weights


def _add_counts(weights: Weights, encoded: Sequence[Sequence[int]], values: Sequence[float]) -> None:
    lengths = [len(ids) for ids in encoded]
    flat = np.fromiter((index for ids in encoded for index in ids), dtype=np.int64, count=sum(lengths))
    weights += np.bincount(flat, weights=np.repeat(values, lengths), minlength=len(weights))


def _spelled(groups: WordGroups, spelling: str, code: str) -> Iterable[tuple[float, list[str]]]:
    """The groups in one spelling; a word that the spelling does not change is left out of it."""
    if spelling == "plain":
        yield from ((frequency, list(words)) for frequency, words in groups)
        return
    change: Callable[[str], str] = _capitalise if spelling == "capitalised" else str.upper
    left = CAPITALS_LIMIT if spelling == "capitals" else WORD_LIMIT * 4
    for frequency, words in groups:
        if left <= 0:
            return
        prepared = [word.replace("i", "İ") for word in words] if code in ("tr", "az") and spelling == "capitals" else words
        if code in ("tr", "az") and spelling == "capitalised":
            prepared = ["İ" + word[1:] if word.startswith("i") else word for word in words]
        changed = [
            new for word, old in zip(prepared, words, strict=True) if (new := change(word)) != old and len(old) > 0
        ][:left]
        left -= len(changed)
        if changed:
            yield frequency, changed


def _capitalise(word: str) -> str:
    """The first letter as a title letter, the rest as it is ("ǆ" -> "ǅ", "o'neill" -> "O'neill")."""
    return word[:1].title() + word[1:]


def _fits(word: str, scripts: frozenset[str]) -> bool:
    """Whether every character belongs to these scripts or to everyone, and none is a digit."""
    if word.isascii():
        return "Latn" in scripts and word.replace("'", "").isalpha()
    for character in word:
        if character.isdigit():
            return False
        own = scripts_of_character(character)
        if own and own.isdisjoint(scripts):
            return False
    return True
