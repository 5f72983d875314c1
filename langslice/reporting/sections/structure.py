"""Layers, heads, neurons and experts: what was removed, and the scores that say what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import isfinite

from langslice.formatting import number_runs
from langslice.reporting.charts import STRIP_CELLS, Bar, bars, data_table, figure, heat_strip, kept_strip, legend
from langslice.reporting.data import LayerRow, LayerStack, Report, ScoreMap, UnitRow
from langslice.reporting.markup import Child, Markup, join, tag
from langslice.reporting.numbers import figures
from langslice.reporting.sections.section import Section, note, subheading

_STYLES = {
    "stock": "Stock configuration: every layer has the same sizes, and config.json says them.",
    "sliced": "Sizes differ by layer: config.json says them, and modeling_sliced.py builds them (trust_remote_code=True).",
    "masked": "Masked: what was removed is zero, and shapes are the source's.",
}
_SHOWN_LANGUAGES = 4
# Parts of a layer that are not those of an attention.
_KINDS: Mapping[str, Callable[[LayerRow], UnitRow | None]] = {
    "neurons": lambda row: row.neurons,
    "experts": lambda row: row.experts,
}


def structure_section(report: Report) -> Section | None:
    """Maps of layers against heads, neurons and experts; None where no layer was touched."""
    if not report.stacks:
        return None
    body: list[Child] = [tag("p", _STYLES.get(report.style or "", ""))]
    if report.hidden is not None:
        sizes = report.hidden.sizes
        how = ", those of the largest principal directions on text" if report.hidden.rotated else ""
        text = f"Of the {sizes.before:,.0f} dimensions of its hidden states {sizes.after:,.0f} are kept{how}."
        body.append(tag("p", text))
    for stack in report.stacks:
        body.append(_stack(stack))
        if not stack.sizes_known:
            body.append(note("How many heads and neurons the source's layers have is not in this slice's record."))
    return Section("structure", "Layers, heads and neurons", tuple(body))


def _stack(stack: LayerStack) -> Markup:
    attentions = list(dict.fromkeys(name for row in stack.layers for name in row.heads))
    kinds = [kind for kind in _KINDS if any(_KINDS[kind](row) is not None for row in stack.layers)]
    columns = ["layer", *(_attention(name, len(attentions)) for name in attentions), *kinds]
    rows = []
    for row in stack.layers:
        cells = [_units(row.heads.get(name), row) for name in attentions]
        cells += [_units(_KINDS[kind](row), row) for kind in kinds]
        if not cells:
            cells = [tag("td", "kept" if row.new is not None else "removed")]
        new = "removed" if row.new is None else "" if row.new == row.layer else f"now {row.new}"
        head = tag("th", tag("span", f"{row.layer}", class_="old"), tag("span", new, class_="new"), scope="row")
        rows.append(tag("tr", head, *cells, class_=None if row.new is not None else "layer-gone"))
    if len(columns) == 1:
        columns.append("in the slice")
    head_row = tag("tr", *(tag("th", name, scope="col") for name in columns))
    caption = f"{stack.name}: what stays in each layer"
    table = tag(
        "table", tag("caption", caption, class_="unseen"), tag("thead", head_row), tag("tbody", *rows), class_="map"
    )
    box = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label=caption)
    key = legend([("filled", "kept"), ("gone-key", "removed"), ("half", "a bin of neurons of which a part stays")])
    details = data_table(
        ["layer", "new number", "what", "kept", "of", "removed"], list(_removed(stack)), caption=f"Removed from {stack.name}",
        text_columns=3,
    )  # fmt: skip
    unit = f"{' and '.join(['heads', *kinds])} kept of those in the source, by its layers"
    return figure(f"Map of {stack.name}", unit, join(box, key), table=details)


def _attention(name: str, count: int) -> str:
    return "heads" if count == 1 else f"{name}-attention heads"


def _units(unit: UnitRow | None, row: LayerRow) -> Markup:
    if unit is None:
        return tag("td", "–")
    text = f"{len(unit.kept):,} of {unit.total:,}" if row.new is not None else f"0 of {unit.total:,}"
    return tag("td", kept_strip(unit.total, unit.kept), tag("span", text, class_="cell-text"))


def _removed(stack: LayerStack) -> list[list[Child]]:
    found: list[list[Child]] = []
    for row in stack.layers:
        new = "removed" if row.new is None else str(row.new)
        units = [(f"{name}-attention heads", unit) for name, unit in row.heads.items()]
        units += [(kind, unit) for kind, of in _KINDS.items() if (unit := of(row)) is not None]
        if not units:
            found.append([str(row.layer), new, "layer", "1" if row.new is not None else "0", "1", ""])
        for what, unit in units:
            gone = sorted(set(range(unit.total)) - set(unit.kept))
            listed = "all" if len(gone) == unit.total else ranges(gone) or "none"
            found.append([str(row.layer), new, what, f"{len(unit.kept):,}", f"{unit.total:,}", listed])
    return found


def ranges(numbers: Sequence[int], most: int = 24) -> str:
    """Numbers as ranges, the first `most` of them: (0, 1, 2, 5) -> "0-2, 5"."""
    found = number_runs(numbers)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def scores_section(report: Report) -> Section | None:
    """Scores of layers, heads, neurons and experts, with what was removed marked."""
    if not report.scores:
        return None
    body: list[Child] = [
        tag("p", "Scores are of the model before the slice; a higher score is a more important part."),
    ]
    by_file: dict[tuple[str, str, str], list[ScoreMap]] = {}
    for one in report.scores:
        by_file.setdefault((one.kind, one.method, one.file), []).append(one)
    for (kind, method, file), maps in by_file.items():
        body.append(subheading(f"{kind.capitalize()} by {method}"))
        for one in maps[:_SHOWN_LANGUAGES]:
            body.append(_score_map(one, report))
        if len(maps) > _SHOWN_LANGUAGES:
            rest = ", ".join(one.language for one in maps[_SHOWN_LANGUAGES:])
            body.append(note(f"{file} also has rows for {rest}."))
        read = f"Measured on {', '.join(maps[0].texts)}" if maps[0].texts else "No text was read"
        seeds = f", mean of {maps[0].seeds} samples" if maps[0].texts and maps[0].seeds > 1 else ""
        body.append(note(f"{read}{seeds} ({file})."))
    return Section("scores", "Scores", tuple(body))


def _score_map(one: ScoreMap, report: Report) -> Markup:
    """Strips of cells by layer, each shaded on the scale of all layers together; bars where a layer has one score."""
    if one.kind == "layers":
        return _layer_bars(one, report)
    values = [value for row in one.rows.values() for value in row if isfinite(value)]
    low, high = _scale(values)
    rows, numbers = [], []
    for layer, row in one.rows.items():
        gone = _gone(one, layer, report)
        bins, bin_gone = _bins(row, gone)
        text = f"{figures(min(row), 3)} to {figures(max(row), 3)}"
        removed = f", {len(gone)} removed" if gone else ""
        strip = heat_strip(bins, low, high, gone=bin_gone)
        cell = tag("td", strip, tag("span", text + removed, class_="cell-text"))
        rows.append(tag("tr", tag("th", str(layer), scope="row"), cell))
        numbers += _numbers(one, layer, row, gone)
    where = one.place if not one.language else f"{one.place}, {one.language}"
    head = tag(
        "tr",
        tag("th", "layer", scope="col"),
        tag("th", f"{one.kind} by number; below, lowest to highest score", scope="col"),
    )
    caption = f"{one.kind.capitalize()} of {where} by {one.method}"
    table = tag(
        "table", tag("caption", caption, class_="unseen"), tag("thead", head), tag("tbody", *rows), class_="map"
    )
    box = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label=caption)
    binned = any(len(row) > STRIP_CELLS for row in one.rows.values())
    marked = "bins of which more than half were removed" if binned else "removed in this slice"
    scale = f"from {figures(low, 3)} (pale) to {figures(high, 3)} (full) or more"
    key = legend([("scale", f"score, {scale}"), ("mark-key", marked)])
    columns = ["layer", one.kind[:-1], "score", "in the slice"]
    if one.kind == "neurons":
        columns = ["layer", "neurons", "lowest", "median", "highest", "removed"]
    details = data_table(columns, numbers, caption=f"Scores: {caption}", limit=400)
    return figure(caption, f"score ({one.method}), no unit", join(box, key), table=details)


def _layer_bars(one: ScoreMap, report: Report) -> Markup:
    finite = [row[0] for row in one.rows.values() if isfinite(row[0])]
    high = max(finite, default=0.0) or 1.0
    drawn, rows = [], []
    for layer, row in one.rows.items():
        gone = bool(_gone(one, layer, report))
        share = max(row[0], 0.0) / high if isfinite(row[0]) else 0.0
        text = f"{figures(row[0])}{', removed' if gone else ''}"
        drawn.append(Bar(f"layer {layer}", 0.0, share, text, "before-fill" if gone else "kept"))
        rows.append([str(layer), figures(row[0]), "removed" if gone else "kept"])
    where = f" of the {one.place}" if one.place != "layers" else ""
    caption = f"Layers{where} by {one.method}" + (f", {one.language}" if one.language else "")
    key = legend([("filled", "kept"), ("removed-key", "removed in this slice")])
    table = data_table(["layer", "score", "in the slice"], rows, caption=f"Scores: {caption}")
    return figure(caption, f"score ({one.method}), no unit", join(bars(drawn), key), table=table)


def _numbers(one: ScoreMap, layer: int, row: Sequence[float], gone: frozenset[int]) -> list[list[Child]]:
    if one.kind == "neurons":
        ordered = sorted(row)
        shown = (ordered[0], ordered[len(ordered) // 2], ordered[-1])
        return [[str(layer), f"{len(row):,}", *(figures(value) for value in shown), f"{len(gone):,}"]]
    return [
        [
            str(layer),
            "–" if one.kind == "layers" else str(index),
            figures(value),
            "removed" if index in gone else "kept",
        ]
        for index, value in enumerate(row)
    ]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of the shades: zero or the least, and the 99th percentile, so that one outlier does not blank the rest."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if len(ordered) >= 200 else ordered[-1]
    return min(ordered[0], 0.0), high


def _gone(one: ScoreMap, layer: int, report: Report) -> frozenset[int]:
    """Indices that this slice removed, as far as the record says what it kept."""
    stack = next((stack for stack in report.stacks if stack.name == one.place.partition(".")[0]), None)
    if stack is None or layer >= len(stack.layers):
        return frozenset()
    row = stack.layers[layer]
    if one.kind == "layers":
        return frozenset() if row.new is not None else frozenset({0})
    unit = row.heads.get(one.place.rpartition(".")[2]) if one.kind == "heads" else _KINDS[one.kind](row)
    return frozenset() if unit is None else frozenset(range(unit.total)) - set(unit.kept)


def _bins(row: Sequence[float], gone: frozenset[int]) -> tuple[list[float], frozenset[int]]:
    """At most so many cells as a strip shows: means of neighbours, marked where more than half of them are gone."""
    if len(row) <= STRIP_CELLS:
        return list(row), gone
    edges = [round(number * len(row) / STRIP_CELLS) for number in range(STRIP_CELLS + 1)]
    spans = list(pairwise(edges))
    means = [sum(row[start:end]) / (end - start) for start, end in spans]
    marked = {
        at
        for at, (start, end) in enumerate(spans)
        if sum(index in gone for index in range(start, end)) * 2 > end - start
    }
    return means, frozenset(marked)
