"""Tables of a reproduction: conditions as rows, languages as columns, a mark where a slice differs for sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.evaluation.tables import SIGNIFICANT, number_text
from langslice.files.atomic_output import staging_file
from langslice.sweeps.result import Finished, Sweep


@dataclass(frozen=True)
class Sheet:
    """One table: its title, its columns next to the first, and rows of (name, cells)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Reproduction:
    """Everything that a reproduction found; `failed` runs have no row."""

    title: str
    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...]
    sweep: Sweep

    @property
    def markdown(self) -> str:
        """All tables as a Markdown page."""
        parts = [f"# {self.title}\n", f"`*` differs from the whole model, p < {SIGNIFICANT} by the paired bootstrap.\n"]
        for found in self.sheets:
            parts.append(f"## {found.title}\n")
            parts.append(f"| | {' | '.join(found.columns)} |")
            parts.append(f"|---|{'---:|' * len(found.columns)}")
            parts += [f"| {name} | {' | '.join(cells)} |" for name, cells in found.rows]
            parts.append("")
        if self.notes:
            parts += ["## Notes\n", *[f"- {note}" for note in self.notes]]
        return "\n".join(parts) + "\n"

    def save(self, path: Path) -> None:
        """Write the page."""
        with staging_file(path) as partial:
            partial.write_text(self.markdown, encoding="utf-8")


def sheet(done: Sweep, names: Sequence[str], title: str, task: str, metric: str) -> Sheet:
    """Scores of one metric: a row for each condition that has a result, a column for each language."""
    columns: dict[str, None] = {}
    for run in done.runs:
        columns.update({score["language"] or "all": None for score in _scores(run, task, metric)})
    rows = []
    for name, run in zip(names, done.runs, strict=True):
        by_language = {score["language"] or "all": score for score in _scores(run, task, metric)}
        if by_language:
            rows.append((name, tuple(_cell(by_language.get(column)) for column in columns)))
    return Sheet(title, tuple(columns), tuple(rows))


def with_mean(found: Sheet) -> Sheet:
    """The table with the mean of each row after it, where every column has a figure."""
    if len(found.columns) < 2:
        return found
    rows = []
    for name, cells in found.rows:
        values = [float(cell.rstrip("*")) for cell in cells if cell != "–"]
        mean = f"{sum(values) / len(values):.4g}" if len(values) == len(cells) else "–"
        rows.append((name, (*cells, mean)))
    return Sheet(found.title, (*found.columns, "mean"), tuple(rows))


def _scores(run: Finished, task: str, metric: str) -> list[Any]:
    if run.result is None:
        return []
    return [score for score in run.result["scores"] if (score["task"], score["metric"]) == (task, metric)]


def _cell(score: Any) -> str:
    if score is None:
        return "–"
    value = (score["slice"] or score["original"])["value"]
    if value is None:
        return "–"
    p = (score["difference"] or {}).get("p")
    return number_text(value, score["metric"]) + ("*" if p is not None and p < SIGNIFICANT else "")
