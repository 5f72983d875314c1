"""Tables of the feature analysis, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from langslice.features import AblatedTranslation, Ablation, Magnitudes
    from langslice.features.overlaps import Marks

SHOWN = 6


def print_particular(measured: Magnitudes, condition: str, marks: Marks) -> None:
    """For each layer, how many dimensions are particular to a condition, and the largest of them.

    marks  (layers, dimensions) bool
    """
    table = Table("layer", Column("particular", justify="right"), "largest of them (dimension: magnitude)")
    values = measured.of(condition)
    for layer, name in enumerate(measured.layers):
        found = np.flatnonzero(marks[layer])
        largest = found[np.argsort(-values[layer, found], kind="stable")][:SHOWN]
        listed = ", ".join(f"{one}: {values[layer, one]:.3g}" for one in largest)
        table.add_row(name, str(found.size), listed)
    console = Console()
    console.print(f"Dimensions particular to [bold]{escape(condition)}[/bold]")
    console.print(table)


def print_ablation(condition: str, rows: Sequence[Ablation]) -> None:
    """Loss by what was zeroed, mean and range over seeds."""
    conditions = list(dict.fromkeys(row.condition for row in rows))
    table = Table(
        "zeroed", Column("dimensions", justify="right"), *(Column(one, justify="right") for one in conditions)
    )
    answers = any(row.answer_loss is not None for row in rows)
    if answers:
        table.add_column("answers alone", justify="right")
    for kind in dict.fromkeys(row.zeroed for row in rows):
        cells = [
            _spread([row.loss for row in rows if (row.zeroed, row.condition) == (kind, one)]) for one in conditions
        ]
        if answers:
            cells.append(
                _spread([row.answer_loss for row in rows if row.zeroed == kind and row.answer_loss is not None])
            )
        count = next(row.dimensions for row in rows if row.zeroed == kind)
        table.add_row(kind, str(count), *cells)
    console = Console()
    console.print(
        f"Loss in nats per token, with dimensions of [bold]{escape(condition)}[/bold] zeroed after every layer"
    )
    console.print(table)


def print_translations(condition: str, rows: Sequence[AblatedTranslation]) -> None:
    """BLEU and chrF++ by pair and by what was zeroed, each with its interval and its change."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = Table(
        "pair", "zeroed", Column("seed", justify="right"), Column("as before", justify="right"),
        *(column for one in metrics for column in (Column(one, justify="right"), Column("change", justify="right"))),
    )  # fmt: skip
    for pair, kind, seed in dict.fromkeys((row.pair, row.zeroed, row.seed) for row in sorted(rows, key=_pair)):
        found = {row.metric: row for row in rows if (row.pair, row.zeroed, row.seed) == (pair, kind, seed)}
        first = found[metrics[0]]
        cells = [cell for one in metrics for cell in _score_cells(found[one])]
        number = "" if seed is None else str(seed)
        table.add_row(pair, kind, number, f"{first.unchanged} of {first.lines}", *cells)
    console = Console()
    console.print(
        f"Translations with dimensions of [bold]{escape(condition)}[/bold] zeroed after every layer; below, 95% "
        "intervals, and p of the paired bootstrap"
    )
    console.print(table)
    for note in dict.fromkeys(row.note for row in rows if row.note):
        console.print(escape(note))
    short = {row.pair: row.shortened for row in rows if row.shortened}
    for pair, count in short.items():
        console.print(f"{pair}: {count} prompts had room for fewer than {rows[0].shots} demonstrations")


def _pair(row: AblatedTranslation) -> str:
    return row.pair


def _score_cells(row: AblatedTranslation) -> tuple[str, str]:
    """A score and its change, each above its interval."""
    score = f"{row.score:.2f}\n{row.low:.2f} to {row.high:.2f}"
    if row.p is None or row.change_low is None or row.change_high is None:
        return score, ""
    return score, f"{row.change:+.2f}, p {row.p:.3f}\n{row.change_low:+.2f} to {row.change_high:+.2f}"


def _spread(losses: Sequence[float]) -> str:
    spread = f"\n{min(losses):.3f} to {max(losses):.3f}" if len(losses) > 1 else ""
    return f"{np.mean(losses):.3f}{spread}"
