"""Language codes and the scripts that CLDR gives them."""

import pytest

from langslice.errors import LanguageError
from langslice.vocabulary.languages import parse_languages, word_list_code


@pytest.mark.parametrize(
    ("code", "tag", "scripts", "lexicon"),
    [
        ("ko", "ko", ("Hang", "Hani"), True),
        ("kor_Hang", "ko-Hang", ("Hang",), True),
        ("ja", "ja", ("Hira", "Kana", "Hani"), True),
        ("cmn", "zh", ("Hani",), True),
        ("zh-Hant", "zh-Hant", ("Hani",), True),
        ("arb", "ar", ("Arab",), True),
        ("pes_Arab", "fa", ("Arab",), True),
        ("swh", "sw", ("Latn",), False),
        ("pt-BR", "pt-BR", ("Latn",), True),
        ("sr", "sr", ("Cyrl", "Latn"), True),
        ("sr-Latn", "sr-Latn", ("Latn",), True),
        ("hr", "hr", ("Latn",), True),
        ("th", "th", ("Thai",), False),
        ("nn", "nn", ("Latn",), False),
    ],
)
def test_codes_of_every_kind(code, tag, scripts, lexicon):
    (language,) = parse_languages([code])
    assert (language.tag, language.scripts, language.lexicon) == (tag, scripts, lexicon)


def test_commas_and_repetitions():
    assert [language.tag for language in parse_languages(["ko, en", "kor", "en"])] == ["ko", "en"]
    assert parse_languages([]) == ()


def test_han_character_sets():
    assert [language.han for language in parse_languages(["ko,ja,zh,zh-Hant,yue,en"])] == [
        "euc_kr", "shift_jis", "gb2312", "big5hkscs", "big5hkscs", None,
    ]  # fmt: skip


def test_lists_of_related_languages():
    assert [word_list_code(tag) for tag in ("sr", "hr", "no", "tl", "sw", "en-US")] == [
        "sh", "sh", "nb", "fil", None, "en",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [("korean", "ko?"), ("koraen", ""), ("englsh", "en (English)"), ("Swahilli", "sw (Swahili)"), ("jp", "ja?")],
)
def test_unknown_code_suggests_the_near_one(typed, suggested):
    with pytest.raises(LanguageError) as caught:
        parse_languages([typed])
    assert caught.value.message == f"unknown language code {typed!r}"
    assert f"did you mean {suggested}" in caught.value.hint


@pytest.mark.parametrize("typed", ["xx", "und", "mul", "ko_KR.UTF8", "1", "日本語"])
def test_what_is_no_language_is_refused(typed):
    with pytest.raises(LanguageError, match="unknown language code"):
        parse_languages([typed])
