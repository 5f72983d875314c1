"""Words, their spellings, and the tokens that they need."""

from pathlib import Path

import numpy as np
import pytest

from langslice.errors import CorpusError, LanguageError
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary import lexicon
from langslice.vocabulary.languages import parse_languages
from langslice.vocabulary.lexicon import (
    Form,
    forms_for,
    language_words,
    read_lexicon,
    recompose,
    restore_spelling,
    serbian_cyrillic,
    weigh_words,
)


def letters(kind="byte-bpe"):
    """A vocabulary of the first 256 characters, one token each."""
    tokens = tuple(chr(code) for code in range(256))
    return SourceTokenizer(
        Path(), kind, tokens, frozenset(), frozenset(), None, (),
        lambda texts: [[ord(character) for character in text] for text in texts],
        lambda ids: "".join(map(chr, ids)),
    )  # fmt: skip


def language(code):
    return parse_languages([code])[0]


def test_weights_by_hand():
    """ab twice as frequent as c: "0 ab ab"-like text gives a 2, b 2, c 1, and capitals a tenth of that."""
    forms = (Form(" ", "plain", 1.0, 10), Form("-", "capitalised", 0.1, 10))
    weights = weigh_words(letters(), [(2.0, ["ab"]), (1.0, ["c"])], forms)
    assert {chr(index): pytest.approx(weights[index]) for index in np.flatnonzero(weights)} == {
        "a": 2.0, "b": 2.2, "c": 1.0, "A": 0.2, "C": 0.1, " ": 3.0, "-": 0.3, "0": 3.3,
    }  # fmt: skip


def test_joining_words_changes_no_weight(monkeypatch):
    groups = [(3.0, ["one", "two", "three"]), (1.0, ["four", "it's"])]
    forms = (*lexicon.SPACED, *lexicon.STARTS)
    joined = weigh_words(letters(), groups, forms)
    monkeypatch.setattr(lexicon, "WORDS_A_TEXT", 1)
    single = weigh_words(letters(), groups, forms)
    anchor = ord(lexicon.ANCHOR)
    np.testing.assert_allclose(np.delete(joined, anchor), np.delete(single, anchor))


def test_limits_and_initials():
    forms = (Form(" ", "plain", 1.0, 1),)
    weights = weigh_words(letters(), [(1.0, ["a", "b"]), (0.5, ["c"])], forms)
    assert weights[ord("a")] == 1.0 and weights[ord("b")] == weights[ord("c")] == 0.0
    initials = weigh_words(letters(), [(1.0, ["a"])], (Form(".", "initials", 1.0, 26),))
    assert all(initials[ord(letter)] > 0 for letter in "AMZ")


def test_words_that_capitals_do_not_change_are_left_out():
    weights = weigh_words(letters(), [(1.0, ["1", "a"])], (Form(" ", "capitalised", 1.0, 10),))
    assert weights[ord("1")] == 0 and weights[ord("A")] == 1.0


def test_turkish_capitals():
    spelled = list(lexicon._spelled([(1.0, ["istanbul", "ırmak"])], Form(" ", "capitalised", 1, 9), "tr"))
    assert spelled == [(1.0, ["İstanbul", "Irmak"])]
    spelled = list(lexicon._spelled([(1.0, ["iki"])], Form(" ", "capitals", 1, 9), "tr"))
    assert spelled == [(1.0, ["İKİ"])]


def test_restored_spellings():
    assert restore_spelling(["strasse"], language("de")) == ["strasse", "straße"]
    assert restore_spelling(["strasse"], language("en")) == ["strasse"]
    assert restore_spelling(["λογοσ"], language("el")) == ["λογοσ", "λογος"]
    assert restore_spelling(["it's"], language("en")) == ["it's", "it’s"]
    assert restore_spelling(["ljubav"], language("sr")) == ["ljubav", "љубав"]
    assert restore_spelling(["ljubav"], language("sr-Latn")) == ["ljubav"]
    assert "عامًا" in restore_spelling(["عاما"], language("ar"))
    assert serbian_cyrillic("džungla njiva čaša") == "џунгла њива чаша"


def test_indic_letters_that_normalisation_takes_apart():
    assert recompose("\u0922\u093c") == "\u095d"
    assert recompose("\u092c\u0922\u093c") == "\u092c\u095d"
    assert recompose("hindi") == "hindi"


def test_language_words_are_clean_and_ordered():
    groups = language_words(language("ko"), limit=5_000)
    frequencies = [frequency for frequency, _ in groups]
    words = [word for _, group in groups for word in group]
    assert frequencies == sorted(frequencies, reverse=True)
    assert len(words) == 5_000
    assert not [word for word in words if any(character.isdigit() for character in word)]
    assert "the" in words and "이야기" in words


def test_foreign_words_only_among_the_frequent():
    words = {word for _, group in language_words(language("ja")) for word in group}
    latin = [word for word in words if word.isascii()]
    assert 100 < len(latin) < lexicon.FOREIGN_LIMIT


def test_no_lexicon():
    with pytest.raises(LanguageError, match=r"there is no lexicon for Swahili \(sw\)"):
        language_words(language("sw"))


def test_forms_by_kind():
    count = {kind: len(forms_for(letters(kind))) for kind in ("byte-bpe", "spm-bpe", "unigram", "wordpiece")}
    assert count == {"byte-bpe": 15, "spm-bpe": 6, "unigram": 6, "wordpiece": 3}
    assert len(forms_for(letters(), "fr")) == 18


def test_lexicon_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeffalpha\n\nbeta\t2.5\ngamma\t2.5\n", encoding="utf-8")
    assert read_lexicon(path) == [(2.5, ["beta", "gamma"]), (1.0, ["alpha"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no word"),
        (b"\n \n", "holds no word"),
        (b"ok\n\xff\n", r"is not valid UTF-8 \(byte 3\)"),
        (b"word\tmany\n", "line 1: 'many' is not a positive weight"),
        (b"ok\nword\t-1\n", "line 2: '-1' is not a positive weight"),
        (b"word\tnan\n", "line 1: 'nan' is not a positive weight"),
        (None, "cannot read the lexicon .*: No such file or directory"),
    ],
)
def test_bad_lexicon_files(tmp_path, content, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_lexicon(path)
