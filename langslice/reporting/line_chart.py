"""A line chart as SVG: one line per group, a band for its interval. No library is needed to draw or to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10
from typing import Final

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 40, 60
# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


@dataclass(frozen=True)
class ChartPoint:
    """A value with its interval at a place on the horizontal axis; `low` and `high` are None where there is none."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ChartLine:
    """Points of one group, in any order.

    dashed  a reference, such as the whole model
    joined  by a line; otherwise each point stands by itself
    """

    name: str
    points: tuple[ChartPoint, ...]
    dashed: bool = False
    joined: bool = True


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[ChartLine], *, x_names: Sequence[str] | None = None
) -> str:
    """Draw lines.

    x_names  names of the places 0, 1, 2 … where the horizontal axis holds no numbers
    Returns  an SVG document
    """
    points = [point for line in lines for point in line.points]
    xs = [point.x for point in points]
    bounds = (point.low if point.low is not None else point.y for point in points)
    tops = (point.high if point.high is not None else point.y for point in points)
    x_ticks = _ticks(min(xs), max(xs)) if x_names is None else [float(number) for number in range(len(x_names))]
    y_ticks = _ticks(min(bounds), max(tops))
    across = _Scale(min(x_ticks[0], *xs), max(x_ticks[-1], *xs), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 22, title, size=15),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, x_label, anchor="middle"),
        f'<text transform="translate(16 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for value in y_ticks:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(_LEFT - 6, up(value) + 4, f"{value:g}", anchor="end"))
    for value in x_ticks:
        label = f"{value:g}" if x_names is None else x_names[int(value)]
        parts.append(_text(across(value), _HEIGHT - _BOTTOM + 18, label, anchor="middle"))
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        parts += _drawn(line, colour, across, up)
        y = _TOP + 18 * number
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        x = _WIDTH - _RIGHT + 12
        parts.append(f'<line x1="{x}" x2="{x + 20}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(_text(x + 26, y + 4, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """Map a range of values to a range of the plot."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._factor = (end - start) / (high - low or 1.0)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._factor


def _drawn(line: ChartLine, colour: str, across: _Scale, up: _Scale) -> list[str]:
    points = sorted(line.points, key=lambda point: point.x)
    places = " ".join(f"{across(point.x):.1f},{up(point.y):.1f}" for point in points)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    parts = []
    banded = [(p.x, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    if len(banded) > 1 and line.joined and not line.dashed:
        lower = [f"{across(x):.1f},{up(low):.1f}" for x, low, _ in banded]
        upper = [f"{across(x):.1f},{up(high):.1f}" for x, _, high in reversed(banded)]
        parts.append(f'<polygon points="{" ".join(lower + upper)}" fill="{colour}" fill-opacity="0.12"/>')
    if line.joined:
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
    if not line.dashed:
        parts += [f'<circle cx="{across(p.x):.1f}" cy="{up(p.y):.1f}" r="3.5" fill="{colour}"/>' for p in points]
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose a range."""
    if not (isfinite(low) and isfinite(high)):
        return [0.0, 1.0]
    if high - low < 1e-12:
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    raw = (high - low) / 5
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = floor(low / step + 1e-9)
    ticks = [round(first * step, 12)]
    while ticks[-1] < high - step * 1e-9:
        ticks.append(round((first + len(ticks)) * step, 12))
    return ticks
