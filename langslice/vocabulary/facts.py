"""What a choice of tokens rested on, as plain data for reports: tokens by script, and how each criterion was limited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.scripts import token_scripts
from langslice.vocabulary.selection_criteria import SelectionCriterion, by_value

# Points of a coverage curve; more than a plot can show.
_POINTS = 96


def script_facts(tokenizer: SourceTokenizer, kept: np.ndarray) -> dict[str, list[int]]:
    """Script or kind -> tokens of the source and how many of them stay, most frequent first.

    kept  (n,) old rows; those beyond the tokenizer are no tokens
    """
    classes = token_scripts(tokenizer)
    shown = classes.shown
    every = classes.by_script()
    stay = Counter(shown[row] for row in kept.tolist() if row < len(shown))
    return {script: [count, stay[script]] for script, count in every.most_common()}


def criteria_facts(pieces: Sequence[tuple[SelectionCriterion, np.ndarray]], kept: np.ndarray) -> list[dict[str, Any]]:
    """Each criterion: how many tokens it speaks for, how many stay, and the curve of its coverage.

    pieces   criterion, and (size,) bool what was taken of it before closing
    kept     (n,) old rows of the result
    Returns  reason; tokens it speaks for, taken and kept; `covered`, the share of its occurrences that the kept tokens
             make up; `curve`, points [tokens, share] of its most frequent tokens. The last two only where it has weights.
    """
    found: list[dict[str, Any]] = []
    for criterion, taken in pieces:
        stays = np.zeros(len(taken), dtype=bool)
        stays[kept[kept < len(taken)]] = True
        spoken = criterion.whole | (criterion.weights > 0)
        entry: dict[str, Any] = {
            "reason": criterion.reason,
            "tokens": int(spoken.sum()),
            "taken": int(taken.sum()),
            "kept": int((spoken & stays).sum()),
        }
        occurrences = criterion.occurrences
        total = float(occurrences.sum())
        if total > 0:
            entry["covered"] = round(float(occurrences[stays].sum()) / total, 9)
            entry["curve"] = coverage_curve(occurrences)
            entry["weighed"] = int(((criterion.weights > 0) & stays).sum())
        found.append(entry)
    return found


def coverage_curve(weights: np.ndarray) -> list[list[float]]:
    """Points [tokens, share of the occurrences] when only the most frequent tokens are kept, closer together at first.

    weights  (size,) float64, occurrences
    Example  weights 6, 3, 1 give [[1, .6], [2, .9], [3, 1]]
    """
    order = by_value(weights)
    order = order[weights[order] > 0]
    share = np.cumsum(weights[order], dtype=np.float64) / weights[order].sum()
    steps = np.unique(np.geomspace(1, len(order), _POINTS).round().astype(np.int64))
    return [[int(step), round(float(share[step - 1]), 9)] for step in steps]
