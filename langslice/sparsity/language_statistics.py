"""Calibration data by language: M-Wanda's factor of each input, and shares by layer from how much alike languages use it.

Source: M-Wanda, Choenni and Titov 2025, arXiv 2505.21171, as its abstract and summaries describe it: input norms by language,
combined by their mean and the variation between languages; a term for the probability that an input is active; sparsity by
layer from the correlation between languages (CWL). Its formulas were not at hand. What the description leaves open is settled
here, in the docstrings of `language_factors` and `correlation_by_block`; this is not the reference implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from langslice.demonstrations.tokens import Prompt
from langslice.errors import PlanError
from langslice.progress import Report
from langslice.sparsity.block_pass import walk
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.input_statistics import InputStatistics
from langslice.sparsity.request import LANGUAGES, SparsityRequest
from langslice.sparsity.scores import Vector
from langslice.sparsity.skeleton import Skeleton


def by_language(prompts: Sequence[Prompt], request: SparsityRequest) -> tuple[Prompt, ...]:
    """Prompts with "keep LANGUAGE" as their condition, which statistics are then summed under.

    Raises  PlanError for a demonstration that names no language or several, and for data in one language only
    """
    what = f"allocation {LANGUAGES!r}" if request.allocation == LANGUAGES else f"score {request.score!r}"
    for prompt in prompts:
        if len(prompt.languages) != 1:
            found = "none" if not prompt.languages else f"{len(prompt.languages)}: {', '.join(prompt.languages)}"
            raise PlanError(
                f"{what} needs calibration data of which each demonstration names one language\n"
                f"  demonstration {prompt.number} names {found}",
                hint="make one file for each language: langslice demonstrations --corpus ko.txt -l ko -o ko.jsonl",
            )
    languages = list(dict.fromkeys(prompt.languages[0] for prompt in prompts))
    if len(languages) < 2:
        raise PlanError(
            f"{what} compares languages, and all calibration data is in one: {languages[0]}",
            hint="pass --keep-demos once for each of two languages or more",
        )
    return tuple(replace(prompt, condition=f"{prompt.condition} {prompt.languages[0]}") for prompt in prompts)


def language_factors(
    norms: npt.NDArray[np.float64], active: npt.NDArray[np.float64], variation: float, activity: float
) -> Vector:
    """What the magnitude of each weight is multiplied with under M-Wanda, by input.

    norms      (languages, inputs) root mean square of each input over the tokens of a language
    active     (languages, inputs) share of the tokens of a language for which the input is active
    variation  weight of the variation between languages; 0 leaves it out
    activity   weight of the probability; 0 leaves it out
    Returns    (inputs,) float32: (mean + variation * standard deviation of `norms`) * (1 + activity * mean of `active`),
               mean and deviation over languages, each of which counts once whatever the length of its text
    Source     Choenni and Titov 2025, arXiv 2505.21171, as described; settled here: norms are per token, so that text of many
               tokens weighs no more; the variation is the standard deviation, in the unit of the norms, so that its weight has
               none; an input is active for a token where its absolute value exceeds the mean of the token's inputs; the
               probability raises the factor by at most `activity` and never takes an input away

    Example    norms (1, 2) and (3, 2), no activity, variation 1: (2 + 1, 2 + 0) = (3, 2)
    """
    combined: npt.NDArray[np.float64] = (norms.mean(axis=0) + variation * norms.std(axis=0)) * (
        1.0 + activity * active.mean(axis=0)
    )
    factors: Vector = np.minimum(combined, float(np.finfo(np.float32).max)).astype(np.float32)
    return factors


def mwanda_factors(linear: Linear, statistics: InputStatistics, request: SparsityRequest) -> Vector:
    """(inputs,) float32: `language_factors` of a layer, over the languages whose prompts were counted."""
    found = [statistics.activity(condition, linear) for condition in statistics.kept()]
    norms, active = (np.stack(each) for each in zip(*found, strict=True))
    return language_factors(norms, active, request.variation_weight, request.activity_weight)


def rank_correlation(norms: npt.NDArray[np.float64]) -> float:
    """Mean over pairs of languages of the rank correlation of their norms; 0 where one language's are all equal.

    norms  (languages, inputs)

    Ranks, of which equal norms share the mean, since the few inputs that are a hundred times the others would decide
    a correlation of the norms themselves.
    """
    centred = np.stack([_ranks(one) for one in norms])
    centred -= centred.mean(axis=1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(axis=1))
    found = [
        float(centred[one] @ centred[other] / (lengths[one] * lengths[other])) if lengths[one] * lengths[other] else 0.0
        for one, other in combinations(range(len(norms)), 2)
    ]
    return float(np.mean(found))


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,) -> (n,): ranks from 0, the mean rank for equal values."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: npt.NDArray[np.float64] = (ends - counts + ends - 1) / 2.0
    return means[places]


def correlation_by_block(
    skeleton: Skeleton,
    chosen: Callable[[Block], tuple[Linear, ...]],
    prompts: Sequence[Prompt],
    *,
    offload: Path | None,
    compute: str,
    report: Report,
) -> dict[str, float]:
    """How much alike languages use a block: the mean over its chosen layers of `rank_correlation` of their input norms.

    prompts  of `by_language`; they pass through the model as it is before any weight goes
    Source   CWL of Choenni and Titov 2025, arXiv 2505.21171, as described; settled here: what is correlated are the norms of a
             layer's inputs, so that texts need not be parallel; layers that read the same tensor count each; a block whose
             inputs are used alike serves every language, and keeps more (allocation.py spreads the shares as OWL does)
    """
    found: dict[str, float] = {}
    for visit in walk(
        skeleton, prompts, watched=chosen, with_activity=True, offload=offload, compute=compute, report=report
    ):
        statistics = visit.statistics
        if statistics is None:
            continue
        layers = [
            rank_correlation(np.stack([statistics.activity(condition, linear)[0] for condition in statistics.kept()]))
            for linear in chosen(visit.block)
            if all(statistics.reached(condition, linear) for condition in statistics.kept())
        ]
        if layers:
            found[visit.block.name] = float(np.mean(layers))
    return found
