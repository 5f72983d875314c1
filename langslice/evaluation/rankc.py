"""RankC: do two languages rank the same answers alike? (Qi, Fernández and Bisazza 2023, arXiv 2310.10378)

    RankC(l, l') = mean over items of  sum_j w_j |top_j(l) ∩ top_j(l')| / j,   w_j = e^(N-j) / sum_k e^(N-k)

with the N candidates of an item in descending likelihood. The code of Kim et al. 2024 sorts ascending, so that the least
likely candidates weigh most; `ascending` gives that figure, for a reproduction only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from langslice.errors import TaskError

if TYPE_CHECKING:
    from langslice.evaluation.choice_tasks import Example
    from langslice.evaluation.loaded_model import Loaded
    from langslice.evaluation.measurement import Measurement


def rank_weights(candidates: int) -> np.ndarray:
    """(N,) float64: weight of each depth, summing to 1. For N = 3: .665 .245 .090."""
    powers = np.exp(-np.arange(candidates, dtype=np.float64))
    return np.asarray(powers / powers.sum())


def item_consistency(first: Sequence[int], second: Sequence[int]) -> float:
    """Agreement of two rankings of the same candidates, 0 to 1.

    first, second  candidates, the likeliest first
    Example        item_consistency([0, 1], [1, 0]) is w_2 = .269: only the sets of both agree
    """
    if sorted(first) != sorted(second):
        raise TaskError("two rankings of one item hold different candidates", "the languages must be parallel")
    overlaps = [len(set(first[:j]) & set(second[:j])) / j for j in range(1, len(first) + 1)]
    return float(rank_weights(len(first)) @ overlaps)


def rank_consistency(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], *, ascending: bool = False
) -> np.ndarray:
    """(items,) float64: agreement of two languages on each item; RankC is the mean.

    ascending  order candidates from the least likely, as the published code of 2409.16911 does
    Raises     TaskError when the items are not equally many, or their candidates differ
    """
    if len(first) != len(second):
        raise TaskError(
            f"RankC needs parallel items, found {len(first)} and {len(second)}", "give both languages the same rows"
        )
    step = -1 if ascending else 1
    return np.array([item_consistency(a[::step], b[::step]) for a, b in zip(first, second, strict=True)])


def random_consistency(candidates: int) -> float:
    """RankC of two random permutations: sum_j w_j j / N. For N = 3: .475."""
    depths = np.arange(1, candidates + 1)
    return float(rank_weights(candidates) @ depths / candidates)


def measure_rankc(
    loaded: Loaded, task: str, examples: Mapping[str, Sequence[Example]], kind: str, *, ascending: bool = False
) -> list[Measurement]:
    """RankC of every pair of languages over one task's labels.

    examples  language -> the same items in the same order
    kind      of LABEL_SCORES, by which labels are ranked
    """
    from langslice.evaluation.measurement import mean_of
    from langslice.evaluation.zero_shot import label_scores, rankings

    ranked = {
        code: rankings(label_scores(loaded, (task, code), found, (kind,)), kind) for code, found in examples.items()
    }
    metric = f"RankC {task}" + (", ascending" if ascending else "")
    found = []
    for first, second in combinations(ranked, 2):
        values = rank_consistency(ranked[first], ranked[second], ascending=ascending)
        chance = float(np.mean([random_consistency(len(order)) for order in ranked[first]]))
        found.append(mean_of("rankc", f"{first}-{second}", metric, values, random=chance, label_score=kind))
    return found
