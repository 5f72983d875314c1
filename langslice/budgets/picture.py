"""The plot of a fit: loss over size, or time, of every point that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langslice.budgets.limits import LATENCY
from langslice.budgets.search import Trial, frontier
from langslice.reporting.line_chart import ChartLine, ChartPoint, line_chart


def picture(model: str, measure: str, points: Sequence[Trial], resource: str) -> str:
    """An SVG document: each axis alone, the tried combinations, and the frontier of all.

    resource  what the horizontal axis shows: size, memory or latency
    """
    full = max(point.cut.rows for point in points)
    groups: dict[str, list[Trial]] = {}
    for point in points:
        if point.loss is not None and (name := _group(point, full)):
            groups.setdefault(name, []).append(point)
    whole = groups.pop("whole", [])
    lines = [
        _line(name, frontier([*whole, *own], resource) if name.endswith("alone") else own, resource)
        for name, own in groups.items()
    ]
    lines.append(_line("frontier", frontier(points, resource), resource))
    label = "time, share of the original's" if resource == LATENCY else f"{resource}, MB"
    name = Path(model).name or model
    return line_chart(f"{name}: what a smaller model costs", label, f"lost, {measure}", lines)


def _group(point: Trial, full: int) -> str:
    axes = point.cut.all_axes(full)
    return "whole" if not axes else f"{axes[0]} alone" if len(axes) == 1 else "combinations"


def _line(name: str, points: Sequence[Trial], resource: str) -> ChartLine:
    scale = 1.0 if resource == LATENCY else 1e6
    shown = []
    for point in points:
        worst = max((point.loss or {}).values(), key=lambda one: one.value)
        shown.append(ChartPoint(point.takes[resource] / scale, worst.value, worst.low, worst.high))
    return ChartLine(name, tuple(shown), dashed=name == "frontier", joined=name != "combinations")
