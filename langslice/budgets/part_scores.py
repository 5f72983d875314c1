"""Scores that say which heads, neurons, experts and hidden dimensions go first, from lines on which no loss is measured.

They are kept in files next to the points: a plan names them, and another fit of the same model finds them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from langslice.budgets.narrowing import Narrowing, measured, ordered
from langslice.budgets.parts import Parts
from langslice.budgets.points import Points
from langslice.files.atomic_output import staging_file
from langslice.progress import Report
from langslice.scoring.methods import ScoreSettings, compute
from langslice.scoring.table import Scores, load_scores

# By these scores heads, neurons and experts go.
_METHODS: Final = {"heads": "gradient", "neurons": "activation", "experts": "routed"}


def scored(points: Points, report: Report) -> Parts:
    """What can go of a model, with the scores of it."""
    parts = points.parts
    scores = {kind: _scores(points, kind, report) for kind in parts.scored_kinds}
    narrowing = parts.narrowing if "hidden" in parts.shares else None
    return replace(parts, scores=scores, narrowing=None if narrowing is None else _ordered(points, narrowing, report))


def _scores(points: Points, kind: str, report: Report) -> Scores:
    checkpoint = points.ladder.source.checkpoint
    lines = {language: each for language, each in points.ladder.texts.learned.items() if each}
    path = points.learned_file(kind, "parquet")
    if not path.is_file():
        method = _METHODS[kind] if lines else "l2"
        found = compute(checkpoint, kind, method, lines, settings=ScoreSettings(seeds=(0,)), report=report)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
    return load_scores(path, checkpoint)


def _ordered(points: Points, narrowing: Narrowing, report: Report) -> Narrowing:
    texts = [] if narrowing.method == "l2" else _text_files(points)
    path = points.learned_file(f"hidden-{narrowing.method}", "npy")
    if not path.is_file():
        found = measured(narrowing, points.ladder.source, texts, report)
        path.parent.mkdir(parents=True, exist_ok=True)
        with staging_file(path) as partial, partial.open("wb") as file:
            np.save(file, found)
    return ordered(narrowing, np.load(path), texts)


def _text_files(points: Points) -> list[str]:
    """The lines as files that a plan can name: its scores of hidden dimensions are made from them again."""
    found = []
    for language, lines in points.ladder.texts.learned.items():
        if lines:
            path = points.learned_file(f"lines-{language or 'text'}", "txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{' '.join(line.split())}\n" for line in lines), encoding="utf-8")
            found.append(f"{language}={path.absolute()}" if language else str(path.absolute()))
    return found
