"""Charts as HTML and inline SVG: bars, strips of cells, lines, intervals.

Text is HTML, at its own size on every screen, and only marks are drawn, in SVG that stretches to the width there is. So a
page needs no script, prints, follows the colour scheme, and a phone shows the same chart as a wall. Each chart is
in a figure with a caption that names its unit, next to a table of the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from langslice.reporting.markup import Child, Markup, join, tag

# Cells of a strip; more are drawn as bins.
STRIP_CELLS = 128
# So many cells, or fewer, are drawn apart.
_APART = 32
# Shades of a heat map: enough for the eye, and few enough that runs of equal cells are drawn as one.
_SHADES = 24


def figure(title: str, unit: str, chart: Markup, *, note: Child = None, table: Markup | None = None) -> Markup:
    """A chart with its caption (what, and in which unit), a remark, and its numbers as a table that opens.

    unit  what the numbers are in: "parameters", "share of occurrences, %"
    """
    caption = tag("figcaption", tag("span", title, class_="figure-title"), " ", tag("span", unit, class_="unit"))
    numbers = tag("details", tag("summary", f"Numbers: {title}"), table) if table is not None else None
    remark = tag("p", note, class_="note") if note is not None else None
    return tag("figure", caption, chart, remark, numbers)


def data_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    caption: str,
    text_columns: int = 1,
    limit: int | None = None,
) -> Markup:
    """A table in a box that scrolls by itself; the first `text_columns` columns are text, the others numbers.

    limit  most rows shown; the rest is counted
    """
    shown = rows if limit is None else rows[:limit]
    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_=None if at < text_columns else "n") for at, name in enumerate(columns)),
    )
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, class_=None if at < text_columns else "n") for at, cell in enumerate(row[1:], start=1)),
        )
        for row in shown
    ]
    more = (
        tag("p", f"{len(rows) - len(shown):,} more rows; `langslice report --json` has them all.", class_="note")
        if len(shown) < len(rows)
        else None
    )
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return join(tag("div", table, class_="scroll", tabindex="0", role="group", aria_label=caption), more)


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: outline is the length before, fill the length after, both shares of the widest."""

    label: Child
    outline: float
    fill: float
    text: Child
    tone: str = "kept"


def bars(rows: Sequence[Bar]) -> Markup:
    """Horizontal bars, each with its label and its numbers as text."""
    drawn = []
    for row in rows:
        outline = tag("span", class_="bar-before", style=f"width:{_percent(row.outline)}")
        fill = tag("span", class_=f"bar-after {row.tone}", style=f"width:{_percent(row.fill)}")
        track = tag("span", outline, fill, class_="track", aria_hidden="true")
        drawn.append(
            tag("li", tag("span", row.label, class_="bar-label"), track, tag("span", row.text, class_="bar-text"))
        )
    return tag("ul", *drawn, class_="bars")


def stacked(label: str, shares: Sequence[tuple[str, float, int]], text: Child) -> Markup:
    """One bar of parts: (name, share of the whole track, number of its colour)."""
    segments = [
        tag("span", class_=f"segment part-{tone}", style=f"width:{_percent(share)}", title=name)
        for name, share, tone in shares
        if share > 0
    ]
    return tag(
        "div",
        tag("span", label, class_="bar-label"),
        tag("span", *segments, class_="track tall", aria_hidden="true"),
        tag("span", text, class_="bar-text"),
        class_="stacked",
    )


def legend(entries: Sequence[tuple[str, Child]]) -> Markup:
    """Marks and what they mean: (class of the mark, text)."""
    items = [tag("li", tag("span", class_=f"key {mark}", aria_hidden="true"), text) for mark, text in entries]
    return tag("ul", *items, class_="legend")


def kept_strip(total: int, kept: Sequence[int]) -> Markup:
    """One cell for each head or neuron, filled where it stays, crossed where it was removed; bins where there are many."""
    if total <= STRIP_CELLS:
        stay = set(kept)
        values = [1.0 if index in stay else 0.0 for index in range(total)]
    else:
        edges = [round(number * total / STRIP_CELLS) for number in range(STRIP_CELLS + 1)]
        counts = [0] * STRIP_CELLS
        at = 0
        for index in sorted(kept):
            while index >= edges[at + 1]:
                at += 1
            counts[at] += 1
        values = [count / (end - start) for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True)]
    return _strip(values, gaps=total <= _APART, crossed=True)


def heat_strip(values: Sequence[float], low: float, high: float, *, gone: frozenset[int] = frozenset()) -> Markup:
    """Cells shaded by value between low and high; those of `gone` (indices of cells) are marked by a line below."""
    span = high - low
    shades = [(value - low) / span if span > 0 and isfinite(value) else 0.0 for value in values]
    return _strip(shades, gaps=len(values) <= _APART, gone=gone)


def _strip(values: Sequence[float], *, gaps: bool, crossed: bool = False, gone: frozenset[int] = frozenset()) -> Markup:
    """SVG of a row of cells, 10 units wide each; runs of one shade are one rectangle, empty ones crossed on request."""
    shapes = []
    levels = [round(min(max(value, 0.0), 1.0) * _SHADES) for value in values]
    start = 0
    for end in range(1, len(levels) + 1):
        if gaps or end == len(levels) or levels[end] != levels[start]:
            width = (end - start) * 10 - (1.2 if gaps else 0)
            level = levels[start]
            removed = crossed and level == 0
            shapes.append(
                tag("rect", x=start * 10, y=0, width=width, height=14, class_="cell gone" if removed else "cell",
                    fill_opacity=None if removed else round(level / _SHADES, 3))
            )  # fmt: skip
            if removed:
                shapes.append(tag("path", d=f"M{start * 10} 0L{start * 10 + width:g} 14", class_="cross"))
            start = end
    shapes += [
        tag("rect", x=index * 10, y=12, width=8.8 if gaps else 10, height=2, class_="mark") for index in sorted(gone)
    ]
    width = max(len(values) * 10, 1)
    return tag(
        "svg", *shapes, viewBox=f"0 0 {width} 14", preserveAspectRatio="none", class_="strip spaced" if gaps else "strip",
        aria_hidden="true", focusable="false",
    )  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line of a plot; tone is the number of its colour, points are (x, y)."""

    label: str
    points: Sequence[tuple[float, float]]
    tone: int = 0


@dataclass(frozen=True)
class Point:
    """A marked point with what it says."""

    x: float
    y: float
    text: str
    tone: int = 0


def line_plot(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    x_text: object = None,
    y_text: object = None,
    log_x: bool = False,
    y_range: tuple[float, float] | None = None,
    points: Sequence[Point] = (),
    alternative: str,
) -> Markup:
    """Lines over one pair of axes; ticks, titles and marks are HTML placed by percent.

    x_text, y_text  functions that write a tick
    alternative     what the plot shows, for who does not see it
    """
    write_x = x_text if callable(x_text) else str
    write_y = y_text if callable(y_text) else str
    ys = [y for line in lines for _, y in line.points if isfinite(y)]
    low, high = y_range or _padded(min(ys), max(ys))
    across = _Axis.of([x for line in lines for x, _ in line.points], logarithmic=log_x)
    up = _Axis(low, high)
    grid = [tag("path", d=f"M0 {100 - up.place(tick):.2f}H100", class_="grid") for tick in up.ticks()]
    drawn = []
    for line in lines:
        steps = "L".join(f"{across.place(x):.2f} {100 - up.place(y):.2f}" for x, y in line.points if isfinite(y))
        drawn.append(tag("path", d=f"M{steps}", class_=f"line tone-{line.tone}"))
    picture = tag(
        "svg", *grid, *drawn, viewBox="0 0 100 100", preserveAspectRatio="none", class_="plot", role="img",
        aria_label=alternative, focusable="false",
    )  # fmt: skip
    labels = [
        tag(
            "span", write_x(tick), class_=f"tick-x {_edge(across.place(tick))}", style=f"left:{across.place(tick):.2f}%"
        )
        for tick in across.ticks()
    ]
    sides = [tag("span", write_y(tick), class_="tick-y", style=f"bottom:{up.place(tick):.2f}%") for tick in up.ticks()]
    marks = [
        tag("span", class_=f"point tone-{point.tone}", title=point.text,
            style=f"left:{across.place(point.x):.2f}%;bottom:{up.place(point.y):.2f}%")
        for point in points
    ]  # fmt: skip
    return tag(
        "div",
        tag("div", y_title, class_="axis-y"),
        tag("div", *sides, class_="ticks-y", aria_hidden="true"),
        tag("div", picture, *marks, class_="area"),
        tag("div", *labels, class_="ticks-x", aria_hidden="true"),
        tag("div", x_title, class_="axis-x"),
        class_="plot-box",
    )


@dataclass(frozen=True)
class _Axis:
    """From low to high, which are places 0 and 100."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def of(cls, values: Sequence[float], *, logarithmic: bool) -> _Axis:
        return cls(max(min(values), 1.0) if logarithmic else min(values), max(values), logarithmic)

    def place(self, value: float) -> float:
        if self.logarithmic:
            span = max(log10(self.high) - log10(self.low), 1e-9)
            return (log10(max(value, self.low)) - log10(self.low)) / span * 100
        return (value - self.low) / max(self.high - self.low, 1e-12) * 100

    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.logarithmic else _ticks(self.low, self.high)


def _edge(place: float) -> str:
    return "first" if place < 6 else "last" if place > 94 else "middle"


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between low and high, about `count` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** floor(log10(raw))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if raw <= power * unit * 1.0001)
    first = ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between low and high."""
    return [10.0**power for power in range(ceil(log10(low) - 1e-9), floor(log10(high) + 1e-9) + 1)]


@dataclass(frozen=True)
class Range:
    """A value with its interval, drawn in one track: `tone` "before" or "after"."""

    value: float
    low: float | None
    high: float | None
    tone: str


def interval_track(ranges: Sequence[Range], low: float, high: float) -> Markup:
    """Values and intervals above one another on a common scale from low to high; decoration, as the numbers are next to it."""

    def place(value: float) -> float:
        return min(max((value - low) / max(high - low, 1e-12), 0.0), 1.0)

    rows = []
    for one in ranges:
        if not isfinite(one.value):
            continue
        inside = []
        if one.low is not None and one.high is not None and isfinite(one.low) and isfinite(one.high):
            left, right = place(one.low), place(one.high)
            inside.append(tag("span", class_="reach", style=f"left:{_percent(left)};width:{_percent(right - left)}"))
        inside.append(tag("span", class_="value", style=f"left:{_percent(place(one.value))}"))
        rows.append(tag("span", *inside, class_=f"range {one.tone}"))
    return tag("span", *rows, class_="ranges", aria_hidden="true")


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0) * 100:.2f}%"
