"""Scores from items, how sure they are, and whether two models differ: the bootstrap, for every kind of score alike.

Intervals are percentiles of the bootstrap (Efron 1979). The paired test is the paired bootstrap of Koehn 2004 in the form
that sacreBLEU uses: both models are scored on the same resamples, and p is the share of resamples whose difference lies
further from the mean of all differences than the observed difference lies from zero, and at least 2 / 2^n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

# Numbers of one chunk of resamples, to bound memory: 4 M float64 are 32 MB.
_CHUNK: Final = 1 << 22
COVERAGE: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """Bounds that hold the score in 95% of the resamples; equal to the value where there is one item."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Second model minus first, on the same items.

    value      of the scores
    low, high  95% of the resampled differences
    p          of a difference at least as far from zero, were there none
    """

    value: float
    low: float
    high: float
    p: float


def mean(items: np.ndarray) -> np.ndarray:
    """(..., n, 1) -> (...): the mean."""
    return np.asarray(items[..., 0].mean(-1))


def median(items: np.ndarray) -> np.ndarray:
    """(..., n, 1) -> (...): the median."""
    return np.asarray(np.median(items[..., 0], axis=-1))


def ratio(items: np.ndarray) -> np.ndarray:
    """(..., n, 2) -> (...): sum of the first column over the sum of the second; nan where that is zero."""
    sums = items.sum(-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))


def exp_ratio(items: np.ndarray) -> np.ndarray:
    """(..., n, 2) -> (...): exp of the ratio; perplexity from nats and units."""
    return np.asarray(np.exp(ratio(items)))


def harmonic(items: np.ndarray) -> np.ndarray:
    """(..., n, 4) -> (...): harmonic mean of two ratios; nan where one has nothing to count, 0 where both are 0."""
    first, second = ratio(items[..., :2]), ratio(items[..., 2:])
    total = first + second
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total == 0, 0.0, 2 * first * second / total))


def pearson(items: np.ndarray) -> np.ndarray:
    """(..., n, 2) -> (...): correlation of the columns; nan where one is constant."""
    centred = items - items.mean(-2, keepdims=True)
    x, y = centred[..., 0], centred[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def spearman(items: np.ndarray) -> np.ndarray:
    """(..., n, 2) -> (...): correlation of the ranks, ties at their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(items, axis=-2))


def bleu(items: np.ndarray) -> np.ndarray:
    """(..., n, 10) -> (...): BLEU from sacreBLEU's statistics of each sentence, by sacreBLEU's own formula."""
    from sacrebleu.metrics import BLEU

    return _by_row(items, BLEU()._compute_score_from_stats)


def chrf(items: np.ndarray) -> np.ndarray:
    """(..., n, 24) -> (...): chrF++ from sacreBLEU's statistics of each sentence, by sacreBLEU's own formula."""
    from sacrebleu.metrics import CHRF

    return _by_row(items, CHRF(word_order=2)._compute_score_from_stats)


def _by_row(items: np.ndarray, score: Callable[[list[int]], object]) -> np.ndarray:
    sums = items.sum(-2)
    rows = sums.reshape(-1, sums.shape[-1]).astype(np.int64).tolist()
    values = [float(getattr(score(row), "score", np.nan)) for row in rows]
    return np.asarray(values).reshape(sums.shape[:-1])


STATISTICS: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "mean": mean,
    "median": median,
    "ratio": ratio,
    "exp_ratio": exp_ratio,
    "harmonic": harmonic,
    "pearson": pearson,
    "spearman": spearman,
    "bleu": bleu,
    "chrf": chrf,
}
"""What a measurement's items may be turned into."""


def interval(statistic: str, items: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Bootstrap interval of one model's score.

    items     (n, k) float64
    Example   interval("mean", [[0], [1], [1], [1]]) is about (0.25, 1)
    """
    score = STATISTICS[statistic]
    values = np.concatenate([score(items[index]) for index in _resampled(items, resamples, seed)])
    return Interval(*_bounds(values))


def difference(
    statistic: str, first: np.ndarray, second: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Paired bootstrap of second minus first, item i of both being the same item.

    first, second  (n, k) float64
    """
    score = STATISTICS[statistic]
    observed = float(score(second[None])[0] - score(first[None])[0])
    drawn = [score(second[index]) - score(first[index]) for index in _resampled(first, resamples, seed)]
    values = np.concatenate(drawn)
    values = values[~np.isnan(values)]
    if np.isnan(observed) or values.size == 0:
        return Difference(observed, np.nan, np.nan, np.nan)
    # A tolerance: resampled sums differ in their last bits where the models do not differ at all.
    beyond = np.abs(values - values.mean()) >= abs(observed) * (1 - 1e-9) - 1e-12
    # Few pairs can be told apart by few signs only: below 2 / 2^n no test of n pairs can go.
    p = max((int(beyond.sum()) + 1) / (values.size + 1), 2.0 ** (1 - first.shape[0]))
    return Difference(observed, *_bounds(values), p)


def _resampled(items: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of resamples, (some, n) at a time; the same for the same n and seed, whatever the items."""
    n, columns = items.shape
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // (n * columns))
    for start in range(0, resamples, step):
        yield rng.integers(0, n, (min(step, resamples - start), n))


def _bounds(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if values.size == 0:
        return np.nan, np.nan
    tail = (1 - COVERAGE) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
