"""Figures that a paper printed, next to ours: its reader fills them into a form, because none are made up here.

    source: Table 2 of arXiv 2409.16911, XGLM-2.9B
    tables:
      XNLI, accuracy:
        unpruned: {en: 0.5, fr: null}       # null: not known

The form of a run, with its tables, conditions and languages, lies in its folder as `published-form.yaml`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, Final

from langslice.errors import RecipeError
from langslice.files.atomic_output import staging_file
from langslice.reproduction.tables import Sheet

FORM: Final = "published-form.yaml"
# Shares of one, in tables that have one of these words in their title; papers often print them in percent.
_SHARES: Final = ("accuracy", "RankC", "pass rate", "Pass rate", "Foreign script")

_EMPTY: Final = ("", "null", "~")


@dataclass(frozen=True)
class Published:
    """Figures by title of the table, condition and column; `source` says where they are."""

    source: str
    figures: Mapping[str, Mapping[str, Mapping[str, str]]]


def read_published(path: Path, titles: Collection[str], conditions: Collection[str]) -> Published:
    """Read a form that was filled in.

    titles, conditions  those that the reproduction knows
    Raises              RecipeError for a file that is none, unknown tables and conditions, and figures that are no numbers
    """
    import yaml

    try:
        # Everything as text: 0.50 keeps its digits, and `no` is Norwegian.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"{path}: cannot be read as YAML\n  {error}", f"a run writes an empty form, {FORM}, into its folder"
        ) from error
    whole = _mapping(document, str(path))
    _check_known(whole, ("source", "tables"), str(path), "entry")
    if whole.get("source", "") in _EMPTY:
        raise RecipeError(f"{path}: `source` is empty", "say which table of which paper, and for which model")
    tables = _mapping(whole.get("tables"), f"{path}: tables")
    _check_known(tables, titles, f"{path}: tables", "table")
    figures: dict[str, dict[str, dict[str, str]]] = {}
    for title, rows in tables.items():
        place = f"{path}: {title}"
        rows = _mapping(rows, place)
        _check_known(rows, conditions, place, "condition")
        for name, cells in rows.items():
            for column, text in _mapping(cells, f"{place}: {name}").items():
                if text not in _EMPTY:
                    _check_figure(title, text, f"{place}: {name}, {column}")
                    figures.setdefault(title, {}).setdefault(name, {})[column] = text
    if not figures:
        raise RecipeError(f"{path} holds no figure", "fill in those that the paper prints")
    return Published(str(whole["source"]).strip(), figures)


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise RecipeError(f"{place}: expected names and what belongs to them, found {value!r}", f"see the form, {FORM}")


def _check_known(found: Mapping[str, Any], known: Collection[str], place: str, what: str) -> None:
    for name in found:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise RecipeError(f"{place}: unknown {what} {name!r}", f"{hint}known are {', '.join(known)}")


def _check_figure(title: str, text: Any, place: str) -> None:
    try:
        value = float(text.replace(",", "")) if isinstance(text, str) else float("nan")
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise RecipeError(f"{place}: {text!r} is no number", "null where the paper has none")
    if any(word in title for word in _SHARES) and not 0 <= value <= 1:
        raise RecipeError(f"{place}: {text} is no share of one", f"write {value / 100:.4g} for {text} percent")


def beside_published(sheets: Sequence[Sheet], published: Published) -> tuple[tuple[Sheet, ...], list[str]]:
    """Every table with rows for the published figures and for ours minus these, and notes on what has no counterpart."""
    made = []
    for sheet in sheets:
        figures = published.figures.get(sheet.title)
        made.append(sheet if figures is None else _beside(sheet, figures))
    titles = {sheet.title for sheet in sheets}
    notes = [f"published figures: {published.source}"]
    notes += [f"published, but not obtained here: {title}" for title in published.figures if title not in titles]
    return tuple(made), notes


def _beside(sheet: Sheet, figures: Mapping[str, Mapping[str, str]]) -> Sheet:
    further = dict.fromkeys(column for row in figures.values() for column in row if column not in sheet.columns)
    columns = (*sheet.columns, *further)
    ours = dict(sheet.rows)
    rows: list[tuple[str, tuple[str, ...]]] = []
    for name in dict.fromkeys([*ours, *figures]):
        cells = (*ours.get(name, ("–",) * len(sheet.columns)), *["–"] * len(further))
        rows.append((name, cells))
        if name in figures:
            printed = tuple(figures[name].get(column, "–") for column in columns)
            rows.append((f"{name}, published", printed))
            rows.append((f"{name}, difference", tuple(map(_difference, cells, printed))))
    return Sheet(sheet.title, columns, tuple(rows))


def _difference(ours: str, published: str) -> str:
    """Ours minus the published figure, as exact as the less exact of the two."""
    ours = ours.rstrip("*")
    try:
        change = float(ours.replace(",", "")) - float(published.replace(",", ""))
    except ValueError:  # one of them is not there, or is a size with its unit
        return "–"
    places = min(len(text.partition(".")[2]) for text in (ours, published))
    return f"{change:+,.{places}f}"


def write_form(path: Path, sheets: Sequence[Sheet]) -> None:
    """Write a form with the tables, conditions and columns of a run, to be filled in; one that is there is left alone."""
    import yaml

    if path.exists():
        return
    tables = {sheet.title: {name: dict.fromkeys(sheet.columns) for name, _ in sheet.rows} for sheet in sheets}
    text = yaml.safe_dump({"source": None, "tables": tables}, sort_keys=False, allow_unicode=True, width=1000)
    head = (
        "# Figures of the paper: fill in, then run the same command with --published and this file. null: not known.\n"
    )
    with staging_file(path) as partial:
        partial.write_text(head + text, encoding="utf-8")
