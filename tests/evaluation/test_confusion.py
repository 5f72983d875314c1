"""Language confusion on responses whose language is known."""

from __future__ import annotations

import pytest

from langslice.errors import TaskError
from langslice.evaluation.confusion import check_responses, confusion_measurements, language_detector, measure_confusion
from langslice.evaluation.loaded_model import load_model
from langslice.mini import heldout_text, mini_model_path

KOREAN = "오늘은 날씨가 아주 맑고 바람도 거의 불지 않는다."
ENGLISH = "Today the weather is very clear and there is almost no wind."


@pytest.fixture(scope="module")
def detector():
    return language_detector()


def test_one_response_of_each_kind_by_hand(detector):
    responses = [
        KOREAN,
        f"{KOREAN}\n{ENGLISH}",  # one wrong line of two
        KOREAN.replace("바람도", "wind도 weather"),  # a word of English
        "네",  # too short to be identified
        KOREAN.replace("날씨", "天氣"),  # two letters of another script
    ]
    checks = check_responses(responses, "ko", detector)
    assert [check.lines for check in checks] == [1, 2, 1, 0, 1]
    assert [check.wrong_lines for check in checks] == [0, 1, 0, 0, 0]
    assert [check.english for check in checks] == [False, True, True, False, False]
    assert [check.foreign_beyond_latin for check in checks] == [0, 0, 0, 0, 2]
    assert checks[2].foreign == len("windweather")
    scores = {found.metric: found for found in confusion_measurements("ko", checks)}
    assert scores["line pass rate"].value == pytest.approx(4 / 5)
    assert scores["word pass rate"].value == pytest.approx(3 / 4)
    assert scores["pass rate, both"].value == pytest.approx(2 * 0.8 * 0.75 / 1.55)
    letters = sum(check.letters for check in checks)
    assert scores["foreign script, not Latin"].value == pytest.approx(2 / letters)
    assert scores["foreign script"].better == "lower"
    assert scores["line pass rate"].details["identified"] == 4


def test_latin_languages_have_no_word_level(detector):
    checks = check_responses(["Il fait très beau aujourd'hui et le vent est faible."], "fr", detector)
    metrics = [found.metric for found in confusion_measurements("fr", checks)]
    assert metrics == ["line pass rate", "foreign script"]
    assert checks[0].wrong_lines == 0
    assert checks[0].foreign == 0


def test_english_words_are_lower_case_and_long(detector):
    texts = ["한국의 GDP 와 Seoul 은 the 를 쓴다", "한국의 government 는 쓴다"]
    assert [check.english for check in check_responses(texts, "ko", detector)] == [False, True]


def test_letters_count_where_no_spaces_are_written(detector):
    checks = check_responses(["今天天气很好", "今天"], "zh", detector)
    assert [check.lines for check in checks] == [1, 0]
    assert checks[0].wrong_lines == 0


@pytest.mark.parametrize("language", ["ko", "en", "zh", "hi", "sw"])
def test_true_sentences_pass(language, detector):
    checks = check_responses(heldout_text(language)[:40], language, detector)
    scores = {found.metric: found.value for found in confusion_measurements(language, checks)}
    assert scores["line pass rate"] >= 0.9
    assert scores["foreign script"] <= 0.01


def test_a_language_that_lingua_does_not_know_is_refused(detector):
    with pytest.raises(TaskError, match="lingua does not know the language km"):
        check_responses(["x"], "km", detector)


def test_the_packaged_model_is_measured(detector):
    loaded = load_model(mini_model_path(), device="cpu")
    found = measure_confusion(loaded, "ko", heldout_text("ko")[:4], new_tokens=10, detector=detector)
    assert [len(measured.items) for measured in found] == [4] * 5
    assert found[0].details["empty"] <= 4
    assert 0 <= found[-1].value <= 1
