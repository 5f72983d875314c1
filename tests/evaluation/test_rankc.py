"""RankC by hand, and its baselines by simulation."""

from __future__ import annotations

from itertools import permutations
from math import e

import numpy as np
import pytest

from langslice.errors import TaskError
from langslice.evaluation.rankc import item_consistency, random_consistency, rank_consistency, rank_weights


def test_weights_are_the_published_ones():
    assert rank_weights(3).round(3).tolist() == [0.665, 0.245, 0.09]
    assert rank_weights(2).tolist() == pytest.approx([e / (e + 1), 1 / (e + 1)])
    assert rank_weights(1).tolist() == [1.0]


def test_hand_worked_items():
    w1, w2, w3 = rank_weights(3)
    assert item_consistency([0, 1, 2], [0, 1, 2]) == pytest.approx(1)
    # first of both differs, the first two agree as sets
    assert item_consistency([0, 1, 2], [1, 0, 2]) == pytest.approx(w2 + w3)
    # the first agrees, of the first two one
    assert item_consistency([0, 1, 2], [0, 2, 1]) == pytest.approx(w1 + w2 / 2 + w3)
    # reversed: nothing, then one of two, then all
    assert item_consistency([0, 1, 2], [2, 1, 0]) == pytest.approx(w2 / 2 + w3)
    # turned around by one
    assert item_consistency([0, 1, 2], [1, 2, 0]) == pytest.approx(w2 / 2 + w3)


def test_the_mean_over_items_is_rankc():
    found = rank_consistency([[0, 1, 2], [2, 0, 1]], [[0, 1, 2], [2, 1, 0]])
    w1, w2, w3 = rank_weights(3)
    assert found.mean() == pytest.approx((1 + w1 + w2 / 2 + w3) / 2)


def test_ascending_weighs_the_least_likely_most():
    first, second = [[0, 1, 2]], [[0, 2, 1]]
    w1, w2, w3 = rank_weights(3)
    assert rank_consistency(first, second)[0] == pytest.approx(w1 + w2 / 2 + w3)
    assert rank_consistency(first, second, ascending=True)[0] == pytest.approx(w2 + w3)


def naive_rankc(first, second):
    """Equation 2 of Qi et al. 2023, term by term."""
    total = 0.0
    for one, other in zip(first, second, strict=True):
        count = len(one)
        for depth in range(1, count + 1):
            weight = e ** (count - depth) / sum(e ** (count - k) for k in range(1, count + 1))
            agreeing = sum(candidate in other[:depth] for candidate in one[:depth])
            total += weight * agreeing / depth
    return total / len(first)


def test_rankc_equals_its_equation_term_by_term():
    rng = np.random.default_rng(0)
    for count in (2, 3, 5):
        first, second = ([rng.permutation(count).tolist() for _ in range(30)] for _ in range(2))
        assert rank_consistency(first, second).mean() == pytest.approx(naive_rankc(first, second))


@pytest.mark.parametrize("candidates", [2, 3, 4])
def test_the_random_baseline_is_the_mean_over_all_permutations(candidates):
    orders = list(permutations(range(candidates)))
    everything = [item_consistency(first, second) for first in orders for second in orders]
    assert random_consistency(candidates) == pytest.approx(np.mean(everything))


def test_the_published_baseline():
    assert round(random_consistency(3), 3) == 0.475


def test_items_that_are_not_parallel_are_refused():
    with pytest.raises(TaskError, match="RankC needs parallel items, found 1 and 2"):
        rank_consistency([[0, 1]], [[0, 1], [1, 0]])
    with pytest.raises(TaskError, match="two rankings of one item hold different candidates"):
        item_consistency([0, 1], [0, 2])
