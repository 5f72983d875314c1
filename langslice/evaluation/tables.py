"""The table of an evaluation, for people."""

from __future__ import annotations

from math import isnan

from rich.markup import escape
from rich.table import Column, Table

from langslice.evaluation.results import Evaluation, Score, Value
from langslice.formatting import bytes_text, count_text

SIGNIFICANT = 0.05


def print_evaluation(found: Evaluation) -> None:
    """Scores by task and language, the original and the slice side by side, then what a reader must know."""
    from langslice.formatting import stdout_console

    console = stdout_console()
    for role, model in found.models.items():
        console.print(
            f"[bold]{role}[/]: {escape(str(model['name']))}, {count_text(model['parameters'])} parameters, "
            f"{bytes_text(model['size_bytes'])}, {model['vocabulary']:,} vocabulary rows",
            highlight=False,
        )
    console.print(_table(found))
    for score in found.scores:
        signature = score.details["original"].get("signature")
        if signature:
            console.print(f"{score.metric} {score.language}: {escape(str(signature))}", highlight=False)
    for role, notes in found.notes.items():
        for note in notes:
            console.print(f"note, {role}: {escape(note)}", highlight=False)


def _table(found: Evaluation) -> Table:
    both = any(score.slice is not None for score in found.scores)
    right = [Column(name, justify="right") for name in ("n", "original", "slice", "difference", "p")]
    table = Table("task", "language", "metric", *(right if both else right[:2]), box=None)
    previous = ""
    for score in found.scores:
        row = [score.task if score.task != previous else "", score.language, score.metric, f"{score.original.n:,}"]
        row.append(value_text(score.original, score))
        if both:
            row += [value_text(score.slice, score), *_difference_texts(score)]
        table.add_row(*row)
        previous = score.task
    return table


def value_text(value: Value | None, score: Score) -> str:
    """A score with its interval: `0.4120 (0.391–0.433)`."""
    if value is None or isnan(value.value):
        return "–"
    plain = number_text(value.value, score.metric)
    if value.low is None or value.high is None or isnan(value.low):
        return plain
    bounds = [number_text(bound, score.metric, figures=3) for bound in (value.low, value.high)]
    return f"{plain} ({bounds[0]}–{bounds[1]})"


def number_text(value: float, metric: str, *, figures: int = 4) -> str:
    """A number in so many figures, and sizes as sizes."""
    if metric.endswith("bytes"):
        return f"-{bytes_text(-value)}" if value < 0 else bytes_text(value)
    if abs(value) >= 10_000:
        return f"{value:.3g}"
    before = 3 if abs(value) >= 100 else 2 if abs(value) >= 10 else 1 if abs(value) >= 1 else 0
    return f"{value:.{max(figures - before, 0)}f}"


def _difference_texts(score: Score) -> list[str]:
    """Slice minus original, coloured where it is sure: green for better, red for worse."""
    found = score.difference
    if found is None and score.slice is not None:
        change = score.slice.value - score.original.value
        return [("+" if change > 0 else "") + number_text(change, score.metric), ""]
    if found is None or isnan(found.value):
        return ["–", "–"]
    text = ("+" if found.value > 0 else "") + number_text(found.value, score.metric)
    if found.p < SIGNIFICANT:
        good = (found.value > 0) == (score.better == "higher")
        text = f"[{'green' if good else 'red'}]{text}[/]"
    return [text, f"{found.p:.3f}"]
