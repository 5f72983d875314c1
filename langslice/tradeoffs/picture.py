"""The plot of a trade-off: loss over rows, a line for each language and order of dropping."""

from __future__ import annotations

from pathlib import Path

from langslice.reporting.line_chart import ChartLine, ChartPoint, line_chart
from langslice.tradeoffs.main import Tradeoff


def picture(found: Tradeoff) -> str:
    """An SVG document."""
    orders = list(dict.fromkeys(rung.order for rung in found.rungs))
    lines = []
    for order in orders:
        for language in found.lines:
            points = tuple(
                ChartPoint(rung.rows, rung.loss[language].value, rung.loss[language].low, rung.loss[language].high)
                for rung in found.rungs
                if rung.order == order
            )
            name = language or "text"
            lines.append(ChartLine(name if len(orders) == 1 else f"{name}, by {order}", points))
    name = Path(found.model).name or found.model
    return line_chart(f"{name}: what a smaller vocabulary costs", "rows", f"lost, {found.measure}", lines)
