"""The table of a fit, for people."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Column, Table

from langslice.budgets.limits import LATENCY, amount_text
from langslice.budgets.main import Fit
from langslice.budgets.search import Trial
from langslice.formatting import stdout_console
from langslice.tradeoffs.table import loss_text


def print_fit(found: Fit) -> None:
    """What each tried combination takes, what was predicted and what was measured of its loss; and what was written."""
    console = stdout_console()
    lines = ", ".join(f"{count} {code}" for code, count in found.lines.items())
    before = ", ".join(f"{name} {amount_text(name, found.before[name])}" for name in found.limits if name != LATENCY)
    console.print(
        f"[bold]{escape(found.model)}[/]: {found.before['rows']:,} rows{', ' if before else ''}{before}; losses in "
        f"{found.measure}, 95% intervals, on lines: {lines} ({escape(found.text)})",
        highlight=False,
    )
    right = [Column(name, justify="right") for name in (*found.limits, "predicted")]
    table = Table(
        "", "combination", *right, *(Column(code or "text", justify="right") for code in found.lines), box=None
    )
    for point in found.tried:
        table.add_row(
            "→" if point == found.chosen else "", escape(point.cut.text()),
            *(amount_text(name, _amount(point, name)) for name in found.limits), f"{point.expected:+.4f}",
            *(loss_text((point.loss or {})[code]) for code in found.lines),
        )  # fmt: skip
    console.print(table)
    for name, losses in (("slice", found.written), ("healed", found.healed)):
        if losses is not None:
            said = ", ".join(f"{code or 'text'} {loss_text(loss)}" for code, loss in losses.items())
            console.print(f"{escape(str(found.out / name))} loses {said}", highlight=False)
    for note in found.notes[1:]:
        console.print(f"note: {escape(note)}", highlight=False)


def _amount(point: Trial, resource: str) -> float:
    return point.latency if resource == LATENCY and point.latency is not None else point.takes[resource]
