"""Which tokens the words of a language need, weighed by how frequent the words are.

Words come from wordfreq (Speer 2022, built from Wikipedia, subtitles, news, books and the web) or from the user's own
files. Each word is encoded in the surroundings in which text has it: after a space, at the start of a line, after a
bracket, quote or hyphen, with a capital, in capitals. Words of equal frequency are joined into one text, so that
100,000 words take a few hundred encodings for each form.

wordfreq stores words case-folded and stripped, so the spellings that text really has are restored first: German ß,
Greek final sigma, Turkish capitals, the curved apostrophe, Indic letters that Unicode normalisation takes apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.errors import CorpusError, LanguageError
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.languages import Language, word_list_code
from langslice.vocabulary.scripts import scripts_of_character

WORD_LIMIT: Final = 100_000
INITIALS: Final = (1e-4, tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
FOREIGN_LIMIT: Final = 10_000  # rank beyond which Latin words in other scripts' lists add tokens but no coverage
WORDS_A_TEXT: Final = 200
ANCHOR: Final = "0"  # is before the first word of a text; digits are kept in any case

# Languages that join words with an apostrophe: l’été, dell’arte, l’home.
ELIDING: Final = frozenset({"fr", "it", "ca"})

Weights = np.ndarray[Any, np.dtype[np.float64]]
WordGroups = Sequence[tuple[float, Sequence[str]]]


@dataclass(frozen=True)
class Form:
    """One surrounding of a word.

    before     text between the previous word and this one
    spelling   "plain", "capitalised", "capitals", or "initials" (single capital letters instead of words)
    share      estimated occurrences of the form for each plain occurrence of the word; it orders tokens, no more
    limit      number of words, most frequent first, beyond which the form was measured to add tokens but no coverage
    """

    before: str
    spelling: str
    share: float
    limit: int


SPACED: Final = (
    Form(" ", "plain", 1.0, 100_000),
    Form(" ", "capitalised", 0.2, 100_000),
    Form(" ", "capitals", 0.01, 20_000),
)
STARTS: Final = (
    Form("\n", "plain", 0.05, 50_000),
    Form("\n", "capitalised", 0.1, 50_000),
    Form("\n", "capitals", 0.005, 10_000),
)
BRACKETED: Final = (
    Form(" (", "plain", 0.05, 50_000),
    Form(" (", "capitalised", 0.05, 50_000),
    Form(" (", "capitals", 0.005, 20_000),
)
PUNCTUATED: Final = (
    Form('\n"', "plain", 0.01, 5_000),
    Form('\n"', "capitalised", 0.02, 5_000),
    Form("\n“", "capitalised", 0.01, 5_000),
    Form("\n(", "plain", 0.01, 5_000),
    Form("\n(", "capitalised", 0.01, 5_000),
    Form("-", "plain", 0.01, 10_000),
    Form("-", "capitalised", 0.01, 10_000),
    Form(".", "initials", 0.01, 26),
    Form("\n(", "initials", 0.01, 26),
)
# Of running text: a word in ten begins with a capital; beyond the list, where names are, every second one.
_RUNNING: Final = (Form(" ", "plain", 1.0, 100_000), Form(" ", "capitalised", 0.1, 100_000))
_BEYOND: Final = (Form(" ", "plain", 0.5, 100_000), Form(" ", "capitalised", 0.5, 100_000))
ELIDED: Final = (
    Form("’", "plain", 0.05, 10_000),
    Form("'", "plain", 0.05, 10_000),
    Form("’", "capitalised", 0.01, 5_000),
)


def language_words(language: Language, *, limit: int = WORD_LIMIT) -> list[tuple[float, list[str]]]:
    """The most frequent words of a language, as groups of (frequency per word, words of that frequency).

    Words with a digit, and words in another script than the language's, are left out: wordfreq's lists hold some. Of
    plain Latin ones the most frequent stay, which a language's own texts use ("nba" in Chinese).
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
        rank = limit - left
        fitting = [word for word in words if _fits(word, wanted, foreign=rank < FOREIGN_LIMIT)][:left]
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
    """Words of a user's file, one per line, optionally `word<TAB>weight` (default 1); groups as in language_words.

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
        raise CorpusError(f"the lexicon {path} holds no word", hint="write one word per line, UTF-8")
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


def forms_for(tokenizer: SourceTokenizer, code: str = "") -> tuple[Form, ...]:
    """The surroundings that make a difference to a kind of tokenizer, for a language.

    WordPiece splits at punctuation, so a word is the same everywhere. Unigram and Marian turn a line end into a space,
    and join nothing with punctuation: a bracket stands for every place without a space. SentencePiece BPE keeps line
    ends. Only byte-level vocabularies hold tokens of punctuation and letters ('"The', "-year", "’est").
    """
    if tokenizer.kind == "byte-bpe":
        return SPACED + STARTS + PUNCTUATED + (ELIDED if code.split("-")[0] in ELIDING else ())
    if tokenizer.kind in ("unigram", "marian", "m2m100"):
        return SPACED + BRACKETED
    return SPACED if tokenizer.kind == "wordpiece" else SPACED + STARTS


def weigh_words(tokenizer: SourceTokenizer, groups: WordGroups, forms: Sequence[Form], *, code: str = "") -> Weights:
    """Occurrences of each token when every word occurs as often as its frequency says, in all forms: (size,).

    groups  (frequency, words) as language_words returns them
    code    language, for the rules of capital letters
    """
    weights = np.zeros(len(tokenizer.tokens), dtype=np.float64)
    for form in forms:
        texts: list[str] = []
        values: list[float] = []
        for frequency, words in _spelled(groups, form, code):
            for start in range(0, len(words), WORDS_A_TEXT):
                texts.append(ANCHOR + form.before + form.before.join(words[start : start + WORDS_A_TEXT]))
                values.append(frequency * form.share)
        for side in tokenizer.sides:
            _add_counts(weights, side.encode(texts), values)
    return weights


def running_text(tokenizer: SourceTokenizer, language: Language) -> Weights:
    """Occurrences of each token in running text of a language: (size,), of words in the forms that text mostly has.

    The list says what share of all text its words make up. Words beyond it are like its rarer half, half of them with a capital.
    """
    groups = language_words(language)
    weights = weigh_words(tokenizer, groups, _RUNNING, code=language.tag) / sum(form.share for form in _RUNNING)
    beyond = 1.0 - sum(frequency * len(words) for frequency, words in groups)
    count, seen, rare = sum(len(words) for _, words in groups), 0, []
    for frequency, words in groups:
        seen += len(words)
        if 2 * seen > count:
            rare.append((frequency, words))
    held = sum(frequency * len(words) for frequency, words in rare)
    if beyond <= 0 or held <= 0:
        return weights
    return weights + weigh_words(tokenizer, rare, _BEYOND, code=language.tag) * beyond / held


def _add_counts(weights: Weights, encoded: Sequence[Sequence[int]], values: Sequence[float]) -> None:
    lengths = [len(ids) for ids in encoded]
    flat = np.fromiter((index for ids in encoded for index in ids), dtype=np.int64, count=sum(lengths))
    weights += np.bincount(flat, weights=np.repeat(values, lengths), minlength=len(weights))


def _spelled(groups: WordGroups, form: Form, code: str) -> Iterable[tuple[float, list[str]]]:
    """The groups in one spelling, up to the form's limit; a word that the spelling does not change is left out."""
    if form.spelling == "initials":
        yield INITIALS[0], list(INITIALS[1])
        return
    left = form.limit
    turkish = code.split("-")[0] in ("tr", "az")
    for frequency, words in groups:
        if left <= 0:
            return
        taken = words[:left]
        left -= len(taken)
        spelled = [_spell(word, form.spelling, turkish=turkish) for word in taken]
        if form.spelling != "plain":
            spelled = [new for new, old in zip(spelled, taken, strict=True) if new != old]
        if spelled:
            yield frequency, spelled


def _spell(word: str, spelling: str, *, turkish: bool) -> str:
    """A word with a capital, or in capitals; Turkish and Azeri keep the dot on their capital i."""
    if spelling == "plain":
        return word
    if spelling == "capitals":
        return (word.replace("i", "İ") if turkish else word).upper()
    if turkish and word.startswith("i"):
        return "İ" + word[1:]
    return _capitalise(word)


def _capitalise(word: str) -> str:
    """The first letter as a title letter, the rest as it is ("ǆ" -> "ǅ", "o'neill" -> "O'neill")."""
    return word[:1].title() + word[1:]


def _fits(word: str, scripts: frozenset[str], *, foreign: bool) -> bool:
    """Whether every character belongs to these scripts or to everyone, and none is a digit; or foreign plain Latin."""
    if word.isascii():
        return word.replace("'", "").isalpha() and (foreign or "Latn" in scripts)
    for character in word:
        if character.isdigit():
            return False
        own = scripts_of_character(character)
        if own and own.isdisjoint(scripts):
            return False
    return True
