"""Feature heat maps: which hidden dimensions are large in which condition, and where conditions differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from langslice.features.pictures import file_name
from langslice.reporting.charts import Bar, bars, data_table, figure, heat_strip, legend
from langslice.reporting.data import FeatureMaps, Report
from langslice.reporting.markup import Child, Markup, join, tag
from langslice.reporting.numbers import figures, percent
from langslice.reporting.sections.section import Section, note, subheading

_SHOWN_CONDITIONS = 8
_SHOWN_PAIRS = 24
_SHOWN_LAYERS = 9


def features_section(report: Report) -> Section | None:
    """None where no folder of features was given."""
    features = report.features
    if features is None:
        return None
    body: list[Child] = [
        tag("p", f"How large each of {features.hidden:,} hidden dimensions is, layer by layer, while the model reads "
            f"demonstrations of {len(features.magnitudes)} conditions.")
    ]  # fmt: skip
    body.append(_magnitudes(features))
    if len(features.magnitudes) > _SHOWN_CONDITIONS:
        body.append(note(f"{len(features.magnitudes) - _SHOWN_CONDITIONS} more conditions are in {features.folder}."))
    pairs = [pair for pair in features.overlap if pair[0] != pair[1]]
    if pairs:
        body += [subheading("Overlap between conditions"), _matrix(features), _pairs(features, pairs)]
    for name, rows in features.ablation.items():
        body.append(_ablation(name, [row for row in rows if row.get("pair") is None]))
        translated = [row for row in rows if row.get("pair") is not None]
        if translated:
            body.append(_translations(name, translated))
    return Section("features", "Features", tuple(body))


def _magnitudes(features: FeatureMaps) -> Markup:
    """A strip for each condition, layer by layer, each on its own scale: magnitudes grow by orders along the layers."""
    names = list(features.magnitudes)[:_SHOWN_CONDITIONS]
    marks = _marks(features)
    groups, numbers = [], []
    for number, layer in enumerate(features.layers):
        rows = [tag("tr", tag("th", layer, scope="rowgroup", colspan=2), class_="group")]
        for name in names:
            row = features.magnitudes[name][number]
            top = max((value for value in row if isfinite(value)), default=0.0)
            strip = heat_strip(row, 0.0, top, gone=marks.get((name, number), frozenset()))
            cell = tag("td", strip, tag("span", f"largest {figures(top, 3)}", class_="cell-text"))
            rows.append(tag("tr", tag("th", name, scope="row"), cell))
            numbers.append([layer, name, figures(top), _dimensions(features, row, top)])
        if number in _spread(len(features.layers)):
            groups.append(tag("tbody", *rows))
    step = f"bins of {features.bin_size} dimensions" if features.bin_size > 1 else "dimensions"
    head = tag(
        "tr", tag("th", "layer, condition", scope="col"), tag("th", f"{step}, 0 to {features.hidden - 1}", scope="col")
    )
    caption = "Magnitudes of hidden dimensions by layer and condition"
    table = tag("table", tag("caption", caption, class_="unseen"), tag("thead", head), *groups, class_="map wide-head")
    box = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label=caption)
    keys = [("scale", "0 to the largest of the row")]
    keys += [("mark-key", "dimensions that set this condition apart")] if marks else []
    left = len(features.layers) - len(groups)
    note_text = (
        f"{left} of {len(features.layers)} layers are left out of the plot; the table has them all." if left else None
    )
    details = data_table(["layer", "condition", "largest", "at dimension"], numbers, caption=caption, text_columns=2)
    unit = "root of the squares summed over tokens, mean over demonstrations"
    return figure(caption, unit, join(box, legend(keys)), note=note_text, table=details)


def _spread(count: int) -> frozenset[int]:
    """Layers that are drawn: all, or so many at equal distances with the first and the last."""
    shown = min(count, _SHOWN_LAYERS)
    return frozenset(round(step * (count - 1) / max(shown - 1, 1)) for step in range(shown))


def _dimensions(features: FeatureMaps, row: Sequence[float], top: float) -> str:
    at = row.index(top) * features.bin_size if top in row else 0
    last = min(at + features.bin_size, features.hidden) - 1
    return str(at) if last == at else f"{at} to {last}"


def _marks(features: FeatureMaps) -> dict[tuple[str, int], frozenset[int]]:
    """(condition, layer) -> bins with a dimension that was found to be particular to the condition."""
    found: dict[tuple[str, int], set[int]] = {}
    for name, rows in features.particular.items():
        condition = next((one for one in features.magnitudes if file_name(one) == name), name)
        for row in rows:
            found.setdefault((condition, int(row["layer"])), set()).add(int(row["dimension"]) // features.bin_size)
    return {place: frozenset(bins) for place, bins in found.items()}


def _matrix(features: FeatureMaps) -> Markup:
    """Large in the row's condition and small in the column's, mean over layers."""
    names = list(features.magnitudes)[:_SHOWN_PAIRS]
    means = {pair: sum(values) / len(values) for pair, values in features.overlap.items() if values}
    top = max(means.values(), default=0.0) or 1.0
    head = tag(
        "tr", tag("th", "large in", scope="col"), *(tag("th", f"small in {name}", scope="col") for name in names)
    )
    rows = []
    for first in names:
        cells = []
        for second in names:
            value = means.get((first, second))
            # Up to 45% of the accent, so that text on it keeps its contrast.
            shade = None if value is None or first == second else f"--shade:{45 * value / top:.0f}%"
            text = "–" if value is None or first == second else percent(value)
            cells.append(tag("td", text, class_="shaded", style=shade))
        rows.append(tag("tr", tag("th", first, scope="row"), *cells))
    caption = "Overlap of large and small dimensions, mean over layers"
    table = tag(
        "table", tag("caption", caption, class_="unseen"), tag("thead", head), tag("tbody", *rows), class_="matrix"
    )
    box = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label=caption)
    return figure("Overlap, mean over layers", "dimensions large in one condition and small in the other, %", box)


def _pairs(features: FeatureMaps, pairs: list[tuple[str, str]]) -> Markup:
    """The pairs that differ most, layer by layer."""
    ordered = sorted(pairs, key=lambda pair: -max(features.overlap[pair], default=0.0))
    shown = ordered[:_SHOWN_PAIRS]
    top = max(max(features.overlap[pair], default=0.0) for pair in shown) or 1.0
    rows = []
    for pair in shown:
        values = features.overlap[pair]
        text = f"up to {percent(max(values))}"
        cell = tag("td", heat_strip(values, 0.0, top), tag("span", text, class_="cell-text"))
        rows.append(tag("tr", tag("th", f"{pair[0]} against {pair[1]}", scope="row"), cell))
    head = tag(
        "tr", tag("th", "large in, small in", scope="col"),
        tag("th", f"layers, {features.layers[0]} to {features.layers[-1]}", scope="col"),
    )  # fmt: skip
    caption = "Overlap of large and small dimensions by layer"
    table = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", head),
        tag("tbody", *rows),
        class_="map wide-head",
    )
    box = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label=caption)
    numbers: list[list[Child]] = [
        [f"{pair[0]} against {pair[1]}", *(percent(value) for value in features.overlap[pair])] for pair in shown
    ]
    details = data_table(["large in, small in", *features.layers], numbers, caption="Overlap by layer, %")
    key = legend([("scale", f"0 to {percent(top)} of the dimensions")])
    more = f"{len(shown)} of {len(pairs)} pairs." if len(shown) < len(pairs) else None
    return figure("Overlap by layer", "% of the hidden dimensions", join(box, key), note=more, table=details)


def _ablation(name: str, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """What zeroing a set's dimensions costs in each condition, next to other large ones and random ones."""
    losses: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        losses.setdefault(str(row["condition"]), {}).setdefault(str(row["zeroed"]), []).append(float(row["loss"]))
    means = {one: {kind: sum(found) / len(found) for kind, found in kinds.items()} for one, kinds in losses.items()}
    kinds = [kind for kind in dict.fromkeys(str(row["zeroed"]) for row in rows) if kind != "nothing"]
    widest = max(
        (abs(loss - found.get("nothing", loss)) for found in means.values() for loss in found.values()), default=0
    )
    drawn, table = [], []
    for condition, found in means.items():
        plain = found.get("nothing")
        cells: list[Child] = [condition, "–" if plain is None else figures(plain)]
        for tone, kind in enumerate(kinds):
            change = None if plain is None or kind not in found else found[kind] - plain
            cells.append("–" if change is None else f"{change:+.4f}".replace("-", "−"))
            if change is not None:
                times = len(losses[condition][kind])
                text = f"{cells[-1]}, mean of {times} choices" if times > 1 else str(cells[-1])
                drawn.append(Bar(f"{condition}, {kind}", 0.0, abs(change) / (widest or 1.0), text, f"part-{tone}"))
        table.append(cells)
    counts = sorted({int(row["dimensions"]) for row in rows if row["zeroed"] != "nothing"})
    remark = f"{', '.join(f'{count:,}' for count in counts)} dimensions were zeroed, over all layers together."
    columns = ["condition", "loss", *(f"{kind}: change" for kind in kinds)]
    caption = f"Loss when the dimensions of {name} are zeroed"
    key = legend([(f"part-{tone}", kind) for tone, kind in enumerate(kinds)])
    numbers = data_table(columns, table, caption=f"{caption}, nats per token")
    return figure(caption, "change of the loss, nats per token", join(bars(drawn), key), note=remark, table=numbers)


def _translations(name: str, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """What the model then writes: each score with its interval, and how it differs from the one with nothing zeroed."""
    top = max((float(row["high"]) for row in rows if isfinite(float(row["high"]))), default=0.0) or 1.0
    kinds = list(dict.fromkeys(str(row["zeroed"]) for row in rows))
    groups: dict[tuple[str, str, str], list[float]] = {}
    table: list[list[Child]] = []
    for row in rows:
        groups.setdefault((str(row["metric"]), str(row["pair"]), str(row["zeroed"])), []).append(float(row["score"]))
        zeroed = str(row["zeroed"]) if row["seed"] is None else f"{row['zeroed']}, seed {row['seed']}"
        table.append(
            [str(row["metric"]), str(row["pair"]), zeroed, f"{row['lines']:,}", f"{row['unchanged']:,}",
             f"{row['score']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}", *_changes(row)]
        )  # fmt: skip
    drawn = []
    for (metric, pair, kind), scores in groups.items():
        mean = sum(scores) / len(scores)
        text = f"{mean:.2f}, mean of {len(scores)} choices" if len(scores) > 1 else f"{mean:.2f}"
        drawn.append(Bar(f"{metric}, {pair}, {kind}", 0.0, mean / top, text, f"part-{kinds.index(kind)}"))
    caption = f"Translations when the dimensions of {name} are zeroed"
    columns = ["metric", "pair", "zeroed", "lines", "as before", "score", "95% interval", "change", "its interval", "p"]
    key = legend([(f"part-{tone}", kind) for tone, kind in enumerate(kinds)])
    remark = "Greedy, scored by sacreBLEU; changes are from nothing zeroed, on the same lines, by the paired bootstrap."
    numbers = data_table(columns, table, caption=f"{caption}, points of 100", text_columns=3)
    return figure(caption, "points of 100", join(bars(drawn), key), note=remark, table=numbers)


def _changes(row: Mapping[str, Any]) -> list[Child]:
    """Change, its interval and p; dashes where nothing was zeroed."""
    if row["p"] is None:
        return ["–", "–", "–"]
    change, low, high = (f"{float(row[one]):+.2f}".replace("-", "−") for one in ("change", "change_low", "change_high"))
    return [change, f"{low} to {high}", f"{float(row['p']):.3f}"]
