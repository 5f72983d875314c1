"""From scores of experts to what is dropped: by share or by language, as many of each layer.

Unmodified code has one number of experts for all layers, so every layer loses as many; where experts stand in groups, so does
every group. Results are stack -> layer -> experts, in the numbering of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError, ScoreError
from langslice.model.anatomy import Anatomy
from langslice.scoring.score_checks import by_language, check_fit, check_scores, refuse_unscored
from langslice.scoring.selection import Dropped, count_of
from langslice.scoring.table import Scores, Values

SERVING_SHARE = 0.5
"""Of an expert's fair share of tokens (chosen / experts): who gets as much of a language's tokens serves it."""


def experts_to_drop(scores: Scores, anatomy: Anatomy, share: float, keep_languages: Sequence[str] = ()) -> Dropped:
    """Choose the lowest-scored experts of every layer.

    share            of each layer's experts, 0 <= share < 1, rounded down, within each group where there are groups
    keep_languages   where scores are of languages, an expert counts by the highest of these; else by all text together
    Returns          stack -> layer -> experts
    Raises           ScoreError for scores of another kind or model; LanguageError for a kept language without scores; PlanError
                     where the share is no expert at all, or leaves fewer than a token runs through
    Example          scores [.6, .1, .3] of three experts and a third to drop: expert 1
    """
    check_scores(scores, "experts", share)
    values = _importance(scores, keep_languages)
    check_fit(values, anatomy.experts)
    return lowest_share(values, anatomy, share)


def lowest_share(values: Values, anatomy: Anatomy, share: float) -> Dropped:
    """The experts with the lowest values, as `experts_to_drop` takes them.

    values   stack -> layer -> (experts,)
    """
    dropped: Dropped = {}
    for stack, layers in values.items():
        groups, least = anatomy.expert_groups(stack)
        for layer, row in layers.items():
            size = len(row) // groups
            number = count_of(share, size)
            of = f"{share:g} of {size} experts{' of a group' if groups > 1 else ''}"
            if share and not number:
                raise PlanError(f"{of} is less than one", hint=f"the smallest share is {1 / size:.4g}")
            if size - number < least:
                raise PlanError(
                    f"{of} leaves {size - number}, and {least} are needed to choose from",
                    hint=f"the largest share is {1 - least / size:.4g}",
                )
            dropped.setdefault(stack, {})[layer] = _lowest(row, groups, number)
    return dropped if share else {}


def language_experts_to_drop(scores: Scores, anatomy: Anatomy, keep_languages: Sequence[str]) -> Dropped:
    """Choose the experts that serve only languages that are not kept, as many of each layer as the layer with the fewest has.

    An expert serves a language of whose tokens it is sent at least half its fair share; fair is what each would get if all got
    the same.
    Returns  stack -> layer -> experts; {} where some layer has none
    Raises   LanguageError for a kept language without scores, or when no other language is left; ScoreError for other scores
    """
    check_scores(scores, "experts", 0.0)
    if scores.method != "routed":
        raise ScoreError(f"language experts are chosen by routed shares, these are scores by {scores.method}")
    others, tables = by_language(scores, keep_languages, anatomy.experts)
    dropped: Dropped = {}
    for stack, layers in tables[scores.languages[0]].items():
        groups, least = anatomy.expert_groups(stack)
        foreign = {
            layer: _foreign({one: table[stack][layer] for one, table in tables.items()}, keep_languages, others)
            for layer in layers
        }
        size = len(next(iter(layers.values()))) // groups
        number = min(int(row.reshape(groups, size).sum(1).min()) for row, _ in foreign.values())
        number = min(number, size - least)
        if number > 0:
            dropped[stack] = {
                layer: _lowest(np.where(row, kept, np.inf), groups, number) for layer, (row, kept) in foreign.items()
            }
    return dropped


def random_experts(dropped: Mapping[str, Mapping[int, Sequence[int]]], anatomy: Anatomy, seed: int) -> Dropped:
    """Choose as many experts in each layer as `dropped` has, as many of each group, at random."""
    rng = np.random.default_rng(seed)
    control: Dropped = {}
    for stack, layers in sorted(dropped.items()):
        groups, _ = anatomy.expert_groups(stack)
        for layer, gone in sorted(layers.items()):
            drawn = rng.random(anatomy.experts[stack][layer])
            control.setdefault(stack, {})[layer] = _lowest(drawn, groups, len(gone) // groups)
    return control


def _foreign(
    by_language: Mapping[str, npt.NDArray[np.float64]], keep: Sequence[str], others: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Of one layer: whether each expert serves only other languages, and its highest share of a kept one."""
    served = {one: row >= SERVING_SHARE * row.mean() for one, row in by_language.items()}
    kept = np.max([by_language[one] for one in keep], axis=0)
    return np.any([served[one] for one in others], axis=0) & ~np.any([served[one] for one in keep], axis=0), kept


def _importance(scores: Scores, keep_languages: Sequence[str]) -> Values:
    if not keep_languages or not scores.languages:
        return scores.values()
    refuse_unscored(scores, keep_languages)
    tables = [scores.values(language) for language in keep_languages]
    return {
        stack: {layer: np.max([table[stack][layer] for table in tables], axis=0) for layer in layers}
        for stack, layers in tables[0].items()
    }


def _lowest(row: npt.NDArray[np.float64], groups: int, number: int) -> tuple[int, ...]:
    """The lowest of each group."""
    by_group = row.reshape(groups, -1)
    lowest = np.argsort(by_group, axis=1, kind="stable")[:, :number]
    return tuple(sorted((lowest + by_group.shape[1] * np.arange(groups)[:, None]).ravel().tolist()))
