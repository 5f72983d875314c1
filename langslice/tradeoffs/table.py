"""The table of a trade-off, for people."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Column, Table

from langslice.formatting import bytes_text, stdout_console
from langslice.tradeoffs.losses import Loss
from langslice.tradeoffs.main import Tradeoff


def print_tradeoff(found: Tradeoff) -> None:
    """One line for each size and order: rows, bytes, growth of the text, and loss by language with its interval."""
    console = stdout_console()
    lines = ", ".join(f"{count} {code}" for code, count in found.lines.items())
    console.print(
        f"[bold]{escape(found.model)}[/]: {found.before['rows']:,} rows, {bytes_text(found.before['size_bytes'])}; losses in "
        f"{found.measure}, 95% intervals, on lines: {lines} ({escape(found.text)})",
        highlight=False,
    )
    right = [Column(name, justify="right") for name in ("rows", "weights", "float32", "tokens")]
    table = Table("dropped by", *right, *(Column(code or "text", justify="right") for code in found.lines), box=None)
    for rung in found.rungs:
        growth = max(rung.growth.values()) - 1
        table.add_row(
            rung.order, f"{rung.rows:,}", bytes_text(rung.size_bytes), bytes_text(rung.memory_bytes), f"{growth:+.1%}",
            *(loss_text(rung.loss[code]) for code in found.lines),
        )  # fmt: skip
    console.print(table)
    if found.chosen is not None:
        console.print(f"smallest within the loss asked for: {found.chosen.rows:,} rows, by {found.chosen.order}")
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False)


def loss_text(loss: Loss) -> str:
    """`+0.0142 [+0.0101, +0.0186]`."""
    return f"{loss.value:+.4f} \\[{loss.low:+.4f}, {loss.high:+.4f}]"
