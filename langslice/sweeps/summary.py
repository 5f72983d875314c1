"""The end of a sweep: one table of all runs as CSV and JSON, and a plot of every score along every axis."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langslice.files.atomic_output import staging_file
from langslice.reporting.line_chart import ChartLine, ChartPoint, line_chart

if TYPE_CHECKING:
    from langslice.sweeps.result import Finished, Sweep

FORMAT = "langslice-sweep/1"
COLUMNS = ("task", "language", "metric", "n", "original", "value", "low", "high", "difference", "p")


def write_summary(sweep: Sweep) -> Sweep:
    """Write sweep.json, table.csv and plots into a sweep's folder; what an earlier call plotted is replaced."""
    axes = axis_names(sweep)
    rows = list(table_rows(sweep))
    document = {
        "format": FORMAT,
        "runs": [
            {"key": run.key, "axes": dict(run.run.axes), "recipe": run.run.recipe, "error": run.error or None}
            for run in sweep.runs
        ],
        "rows": rows,
    }
    data = sweep.folder / "sweep.json"
    with staging_file(data) as partial:
        partial.write_text(json.dumps(document, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
    table = sweep.folder / "table.csv"
    with staging_file(table) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*axes, *COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
    plots = sweep.folder / "plots"
    plots.mkdir(exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    written = []
    for name, picture in charts(sweep, rows):
        path = plots / f"{name}.svg"
        path.write_text(picture, encoding="utf-8")
        written.append(path)
    return replace(sweep, tables=(table, data), plots=tuple(written))


def axis_names(sweep: Sweep) -> list[str]:
    """Axes of the grid in the order of the recipe, also those that only some runs have."""
    return list(dict.fromkeys(name for run in sweep.runs for name in run.run.axes))


def table_rows(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """One row for each run, task, language and metric; `value` is the sliced model's, or the model's where nothing was removed."""
    axes = axis_names(sweep)
    for run in sweep.runs:
        for score in _scores(run):
            cut = score["slice"] or score["original"]
            difference = score["difference"] or {}
            yield {
                **{name: run.run.axes.get(name, "") for name in axes},
                "task": score["task"], "language": score["language"], "metric": score["metric"], "n": cut["n"],
                "original": score["original"]["value"], "value": cut["value"], "low": cut["low"], "high": cut["high"],
                "difference": difference.get("value"), "p": difference.get("p"),
            }  # fmt: skip


def _scores(run: Finished) -> list[Mapping[str, Any]]:
    return [] if run.result is None else list(run.result["scores"])


def charts(sweep: Sweep, rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """File name and picture of every metric along every axis with two or more values, a line for each other setting."""
    axes = axis_names(sweep)
    kinds = list(dict.fromkeys((row["task"], row["metric"]) for row in rows))
    for axis in axes:
        for task, metric in kinds:
            own = [row for row in rows if (row["task"], row["metric"]) == (task, metric) and row["value"] is not None]
            places = list(dict.fromkeys(row[axis] for row in own if row[axis] != ""))
            if len(places) < 2:
                continue
            numbers = _numbers(places)
            lines = _lines(own, axis, [name for name in axes if name != axis], numbers, places)
            picture = line_chart(
                f"{task}: {metric}" if task else metric, axis, metric, lines, x_names=None if numbers else places
            )
            yield _file_name(task, metric, axis), picture


def _numbers(places: list[str]) -> dict[str, float]:
    """Values of a numeric axis; empty where one is no number."""
    try:
        return {place: float(place) for place in places}
    except ValueError:
        return {}


def _lines(
    rows: list[dict[str, Any]], axis: str, others: list[str], numbers: dict[str, float], places: list[str]
) -> list[ChartLine]:
    groups: dict[str, list[ChartPoint]] = {}
    whole: dict[str, list[ChartPoint]] = {}
    for row in rows:
        if row[axis] == "":
            continue
        x = numbers[row[axis]] if numbers else float(places.index(row[axis]))
        settings = [row["language"], *[f"{name.split('.')[-1]}={row[name]}" for name in others if row[name] != ""]]
        groups.setdefault(" ".join(filter(None, settings)) or "cut", []).append(
            ChartPoint(x, row["value"], row["low"], row["high"])
        )
        if row["original"] is not None:
            whole.setdefault(row["language"], []).append(ChartPoint(x, row["original"]))
    lines = [ChartLine(name, tuple(points)) for name, points in groups.items()]
    return lines + [
        ChartLine(f"{name} whole model".strip(), tuple(points), dashed=True)
        for name, points in whole.items()
        if len({point.y for point in points}) == 1
    ]


def _file_name(*parts: str) -> str:
    return "-".join(re.sub(r"[^\w.]+", "_", part).strip("_") for part in parts if part)
