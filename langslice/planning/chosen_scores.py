"""The scores that a choice names for layers, heads, neurons or experts: from a file, or measured now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from langslice.model.checkpoint import Checkpoint
from langslice.options import Choice, listed
from langslice.progress import Report

if TYPE_CHECKING:
    from langslice.scoring.table import Scores


def method_for(kind: str, choice: Choice) -> str:
    """The method or file that a choice names for a kind, or the default."""
    given = choice.get(f"{kind}_by")
    if given:
        return str(given)
    from langslice.scoring.methods import default_method

    return default_method(kind, text=bool(listed(choice.get("score_texts"))))


def scores_for(
    checkpoint: Checkpoint, kind: str, method: str, choice: Choice, report: Report, number: int | None = None
) -> Scores:
    """Scores from a file, or computed now on --calibration.

    number  of layers that are to go
    """
    from langslice.scoring.methods import ScoreSettings, compute
    from langslice.scoring.table import load_scores

    if method.endswith(".parquet"):
        return load_scores(Path(method), checkpoint)
    texts = listed(choice.get("score_texts"))
    run = number if method == "angular" and number else 1
    settings = ScoreSettings(run=run, count=number if method == "perplexity" else None)
    return compute(checkpoint, kind, method, texts, settings=settings, report=report)
