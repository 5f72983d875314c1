"""Scores from items, intervals and paired tests: by hand, and against sacreBLEU and scipy."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.errors import TaskError
from langslice.evaluation.measurement import Measurement, mean_of, measurement_from_json
from langslice.evaluation.results import compare
from langslice.evaluation.statistics import STATISTICS, difference, interval


def score(statistic, items):
    return float(STATISTICS[statistic](np.asarray(items, dtype=float)[None])[0])


def test_scores_by_hand():
    assert score("mean", [[1], [0], [1], [1]]) == 0.75
    assert score("median", [[5], [1], [3]]) == 3
    assert score("ratio", [[1, 4], [3, 4]]) == 0.5
    assert score("exp_ratio", [[np.log(8), 2], [0, 1]]) == pytest.approx(2)
    assert score("harmonic", [[1, 2, 1, 1], [0, 0, 0, 3]]) == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert score("harmonic", [[0, 2, 0, 1]]) == 0.0
    assert np.isnan(score("ratio", [[0, 0]]))
    assert score("pearson", [[1, 2], [2, 4], [3, 6]]) == pytest.approx(1)
    assert score("spearman", [[1, 10], [2, 9], [3, 1000]]) == pytest.approx(0.5)


def test_spearman_equals_scipy_with_ties():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    items = rng.integers(0, 6, (80, 2)).astype(float)
    assert score("spearman", items) == pytest.approx(spearmanr(items[:, 0], items[:, 1]).statistic)


def test_bleu_and_chrf_of_resamples_equal_sacrebleu_on_the_resampled_lines():
    from sacrebleu.metrics import BLEU, CHRF

    lines = ["the cat sat on the mat", "a dog ran in the big park today", "we like tea", "rain fell all night long"]
    other = ["the cat sat on a mat", "the dog ran into the park today", "we like coffee", "rain fell the whole night"]
    chosen = [0, 1, 1, 3]
    for statistic, metric in (("bleu", BLEU()), ("chrf", CHRF(word_order=2))):
        items = np.asarray(metric._extract_corpus_statistics(lines, [other]), dtype=float)
        expected = metric.corpus_score([lines[i] for i in chosen], [[other[i] for i in chosen]]).score
        assert score(statistic, items[chosen]) == pytest.approx(expected, abs=1e-9)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        items = rng.normal(1.0, 2.0, (60, 1))
        found = interval("mean", items, resamples=400, seed=seed)
        inside += found.low <= 1.0 <= found.high
    assert 180 <= inside <= 198


def test_no_difference_is_certain_not_to_be_one():
    items = np.random.default_rng(1).random((50, 1))
    found = difference("mean", items, items.copy())
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_finds_what_two_intervals_hide():
    rng = np.random.default_rng(2)
    first = rng.normal(0, 10, (100, 1))
    second = first + rng.normal(0.5, 0.5, (100, 1))
    one, two = interval("mean", first), interval("mean", second)
    assert one.high > two.low
    found = difference("mean", first, second)
    assert found.p < 0.01
    assert found.low > 0


def test_p_of_no_true_difference_is_small_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    small = 0
    for seed in range(200):
        first = rng.normal(0, 1, (40, 1))
        small += difference("mean", first, first + rng.normal(0, 1, (40, 1)), resamples=300, seed=seed).p < 0.05
    assert small <= 22


def test_two_pairs_prove_nothing():
    assert difference("mean", np.array([[1.0], [1.1]]), np.array([[5.0], [5.1]])).p == 0.5


def test_nothing_to_count_is_not_a_number():
    empty = np.zeros((4, 2))
    found = difference("ratio", empty, empty)
    assert np.isnan(found.value)
    assert np.isnan(found.p)


def test_models_measured_on_other_items_are_not_compared():
    first, second = mean_of("t", "ko", "accuracy", [1, 0, 1]), mean_of("t", "ko", "accuracy", [1, 0])
    with pytest.raises(TaskError, match="t ko accuracy: original has 3 items, the slice 2"):
        compare([first], [second], resamples=100, seed=0)
    with pytest.raises(TaskError, match="measured on different tasks"):
        compare([first], [mean_of("u", "ko", "accuracy", [1, 0, 1])], resamples=100, seed=0)


def test_a_measurement_survives_json():
    found = Measurement("t", "ko", "m", "ratio", np.array([[1.0, 3.0], [2.0, 3.0]]), "lower", {"n": 1})
    again = measurement_from_json(found.to_json())
    assert again.key == found.key
    assert again.value == found.value == 0.5
    assert again.better == "lower"
    with pytest.raises(TaskError, match="unknown statistic 'mode'"):
        measurement_from_json({**found.to_json(), "statistic": "mode"})
