"""Quality by language, original against slice, with intervals; speed and memory; the curve of healing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, log10
from typing import Any

from langslice.evaluation.results import Score, Value
from langslice.evaluation.tables import SIGNIFICANT, number_text, value_text
from langslice.options import codes
from langslice.reporting.charts import Line, Range, data_table, figure, interval_track, legend, line_plot
from langslice.reporting.data import Healing, Report, Results
from langslice.reporting.markup import Child, Markup, join, tag
from langslice.reporting.numbers import figures
from langslice.reporting.sections.section import Section, note, subheading
from langslice.reporting.slice_folder import language_label

# Beyond this ratio of the largest to the smallest value a scale is logarithmic.
_LOG_RATIO = 30
# One plot for each task that measures the same thing in several units; the others are in the table.
_SHOWN_METRIC = {"perplexity": "bits per byte"}
_COLUMNS = ["language", "metric", "n", "original", "95% from", "to", "slice", "95% from", "to", "difference", "p"]


def quality_section(report: Report) -> Section | None:
    """None where no results were given."""
    body: list[Child] = []
    for results in report.results:
        if results.scores:
            body += _of_file(results, report)
    if not body:
        return None
    intro = tag(
        "p", "Both models on the same items. Lines are 95% intervals of the bootstrap; p is of the paired bootstrap, "
        f"and a difference is called better or worse only where p is below {SIGNIFICANT}.",
    )  # fmt: skip
    return Section("quality", "Quality by language", (intro, *body))


def _of_file(results: Results, report: Report) -> list[Child]:
    kept = wanted_languages(report)
    body: list[Child] = []
    for task in dict.fromkeys(score.task for score in results.scores):
        of_task = [score for score in results.scores if score.task == task]
        metrics = list(dict.fromkeys(score.metric for score in of_task))
        body.append(subheading(task if len(report.results) == 1 else f"{task} ({results.file})"))
        shown = [metric for metric in metrics if metric == _SHOWN_METRIC.get(task, metric)] or metrics
        for metric in shown:
            rows = [score for score in of_task if score.metric == metric]
            for title, group in _grouped(rows, kept):
                body.append(_intervals(f"{task}: {metric}{title}", metric, group))
        body.append(_table(task, of_task))
    body += [note(f"{role}: {'; '.join(lines)}.") for role, lines in results.notes.items() if lines]
    names = ", ".join(f"{role}: {model['name']}" for role, model in results.models.items())
    device = results.settings.get("dtype", "")
    body.append(note(f"{results.file}; {names}; computed in {device}."))
    return body


def wanted_languages(report: Report) -> frozenset[str]:
    """Codes of the languages that the slice was made for; empty where none were named."""
    if report.vocabulary is None:
        return frozenset()
    return frozenset(language.tag.partition("-")[0] for language in report.vocabulary.languages)


def _grouped(rows: Sequence[Score], kept: frozenset[str]) -> Iterable[tuple[str, list[Score]]]:
    """Kept languages and others apart, each on its own scale: what happens to others would hide the rest."""
    if not kept:
        return [("", list(rows))]
    inside = [score for score in rows if _languages_of(score.language) <= kept]
    outside = [score for score in rows if not _languages_of(score.language) <= kept]
    groups = [(", kept languages", inside), (", languages that were not kept", outside)]
    return [(title if inside and outside else "", group) for title, group in groups if group]


def _languages_of(language: str) -> set[str]:
    """Languages of a score: one, or the two of a pair "ko-en"."""
    return {part for part in codes(language.replace("-", ",")) if part.islower() and len(part) in (2, 3)}


def _intervals(title: str, metric: str, scores: Sequence[Score]) -> Markup:
    values = [value for score in scores for value in _bounds(score) if isfinite(value)]
    if not values:
        return note(f"{title}: nothing to count.")
    logarithmic = min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    if logarithmic:
        values = [log10(value) for value in values]
    room = (max(values) - min(values)) * 0.04 or abs(values[0]) * 0.05 or 1.0
    low, high = min(values) - room, max(values) + room
    rows = []
    for score in scores:
        ranges = [_range(score.original, "before", logarithmic)]
        if score.slice is not None:
            ranges.append(_range(score.slice, "after", logarithmic))
        label = tag("span", _language(score.language), class_="bar-label")
        rows.append(
            tag("li", label, interval_track(ranges, low, high), tag("span", _verdict(score, metric), class_="bar-text"))
        )
    ends = [10**low, 10**high] if logarithmic else [low, high]
    scale = tag(
        "li",
        tag("span", class_="bar-label"),
        tag("span", tag("span", number_text(ends[0], metric, figures=3)), tag("span", number_text(ends[1], metric, figures=3)),
            class_="ends"),
        tag("span", "logarithmic scale" if logarithmic else "scale", class_="bar-text note"),
    )  # fmt: skip
    better = scores[0].better
    key = legend([("before-key", "original"), ("after-key", "slice"), ("reach-key", "95% interval")])
    unit = f"{metric}; {better} is better"
    return figure(title, unit, join(tag("ul", *rows, scale, class_="bars intervals"), key))


def _bounds(score: Score) -> list[float]:
    found = []
    for value in (score.original, score.slice):
        if value is not None:
            found += [one for one in (value.value, value.low, value.high) if one is not None]
    return found


def _range(value: Value, tone: str, logarithmic: bool) -> Range:
    def scaled(one: float | None) -> float | None:
        return None if one is None else log10(one) if logarithmic and one > 0 else one

    return Range(
        scaled(value.value) or 0.0 if isfinite(value.value) else value.value,
        scaled(value.low),
        scaled(value.high),
        tone,
    )


def _language(language: str) -> str:
    """Name of a language for people: "ko" -> "Korean (ko)"; the empty code speaks for all."""
    if not language:
        return "all"
    names = [language_label(part) for part in sorted(_languages_of(language), key=language.find)]
    return f"{' to '.join(names)} ({language})" if names and names != [language] else language


def _verdict(score: Score, metric: str) -> Markup:
    original = number_text(score.original.value, metric)
    if score.slice is None:
        return join(original, f", {score.original.n:,} items")
    return join(f"{original} to {number_text(score.slice.value, metric)}", _sureness(score))


def _sureness(score: Score) -> Markup:
    """Better, worse or neither, with the p that says so; nothing where the difference was not tested."""
    found = score.difference
    if found is None or not isfinite(found.value):
        return join()
    if found.p >= SIGNIFICANT:
        return join(", ", tag("span", f"no sure difference (p {found.p:.2f})", class_="even"))
    good = (found.value > 0) == (score.better == "higher")
    word, tone = ("better", "good") if good else ("worse", "bad")
    return join(", ", tag("span", f"{word} (p {found.p:.3f})", class_=tone))


def _table(title: str, scores: Sequence[Score]) -> Markup:
    rows: list[list[Child]] = []
    for score in scores:
        cells = [*_value_cells(score.original, score.metric), *_value_cells(score.slice, score.metric)]
        found = score.difference
        change = "–" if found is None or not isfinite(found.value) else f"{found.value:+.4g}".replace("-", "−")
        p = "–" if found is None or not isfinite(found.p) else f"{found.p:.4f}"
        rows.append([score.language or "all", score.metric, f"{score.original.n:,}", *cells, change, p])
    table = data_table(_COLUMNS, rows, caption=f"{title}: original and slice", text_columns=2)
    return tag("details", tag("summary", f"Numbers: {title}"), table)


def _value_cells(value: Value | None, metric: str) -> list[str]:
    if value is None:
        return ["–", "–", "–"]
    return [
        "–" if one is None or not isfinite(one) else number_text(one, metric)
        for one in (value.value, value.low, value.high)
    ]


def cost_section(report: Report) -> Section | None:
    """Speed and memory, where they were measured."""
    body: list[Child] = []
    for results in report.results:
        speed = [score for score in results.speed if score.task == "speed"]
        if not speed:
            continue
        for score in speed:
            name, _, unit = score.metric.partition(", ")
            body.append(_cost(name.capitalize(), unit, score))
        body.append(_table("Speed and memory", results.speed))
        rounds = speed[0].original.n
        device = speed[0].details.get("original", {}).get("device", "")
        body.append(
            note(
                f"Medians of {rounds} rounds on {device or 'one device'}, in {results.settings.get('dtype')}, the models taking "
                f"turns, each in a process of its own ({results.file})."
            )
        )
    return Section("cost", "Speed and memory", tuple(body)) if body else None


def _cost(title: str, unit: str, score: Score) -> Markup:
    from langslice.reporting.charts import Bar, bars

    shown = [("original", score.original, "before-fill"), ("slice", score.slice, "kept")]
    widest = max((value.value for _, value, _ in shown if value is not None), default=1.0) or 1.0
    drawn = []
    for role, value, tone in shown:
        if value is not None:
            text = join(value_text(value, score), _sureness(score) if role == "slice" else None)
            drawn.append(Bar(role, 0.0, value.value / widest, text, tone))
    return figure(title, f"{unit}; {score.better} is better; in brackets the 95% interval", bars(drawn))


def healing_section(report: Report) -> Section | None:
    """Training after the slice, where there was any."""
    healing = report.healing
    if healing is None:
        return None
    body: list[Child] = []
    curves = {name: points for name, points in healing.curves.items() if points}
    if curves:
        body.append(_healing_plot(healing, curves))
    pairs = [join(tag("dt", name), tag("dd", str(value))) for name, value in _flat(healing.facts)]
    if pairs:
        body.append(tag("details", tag("summary", "Settings, losses and versions"), tag("dl", *pairs, class_="facts")))
    return Section("healing", "Healing", tuple(body)) if body else None


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Numbers and short texts of a record, those one level down by their own names: settings and losses."""
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            inner = [(f"{name}: {key}", one) for key, one in value.items()]
        else:
            inner = [(name, value)]
        for key, one in inner:
            if isinstance(one, float):
                found.append((key, figures(one)))
            elif isinstance(one, str | int) and one != "":
                found.append((key, str(one)))
    return found


def _healing_plot(healing: Healing, curves: dict[str, tuple[tuple[float, float], ...]]) -> Markup:
    words = [
        f"{name}: from {figures(points[0][1])} at step {points[0][0]:.0f} to {figures(points[-1][1])} at step {points[-1][0]:.0f}"
        for name, points in curves.items()
    ]
    lines = [Line(name, points, tone) for tone, (name, points) in enumerate(curves.items())]
    chart = line_plot(
        lines, x_title="step", y_title=healing.unit, x_text=lambda value: f"{value:g}", y_text=lambda value: f"{value:g}",
        alternative="Loss by step. " + "; ".join(words),
    )  # fmt: skip
    key = legend([(f"tone-{tone}", text) for tone, text in enumerate(words)])
    rows: list[list[Child]] = [
        [name, f"{step:g}", figures(loss, 5)] for name, points in curves.items() for step, loss in points
    ]
    table = data_table(["curve", "step", healing.unit], rows, caption="Losses by step", limit=400)
    return figure("Loss while healing", healing.unit, join(chart, key), table=table)
