"""The vocabulary: by script, by language, the coverage curve with the chosen point, and how text is tokenised."""

from __future__ import annotations

from langslice.reporting.charts import Bar, Line, Point, bars, data_table, figure, legend, line_plot
from langslice.reporting.data import KeptLanguage, Report, Script, Sizes, Vocabulary
from langslice.reporting.markup import Child, Markup, foreign, join, tag
from langslice.reporting.numbers import count_text, figures, percent
from langslice.reporting.sections.section import Section

_SHOWN_SCRIPTS = 24
_SHOWN_CURVES = 7
_SHOWN_TOKENS = 40
# Growth of a text below which its bar has the colour of what is kept.
_SMALL_GROWTH = 1.01


def vocabulary_section(report: Report) -> Section | None:
    """None where the whole vocabulary stays."""
    vocabulary = report.vocabulary
    if vocabulary is None:
        return None
    rows = vocabulary.rows
    padding = f", {vocabulary.padding:,} of them padding" if vocabulary.padding else ""
    stay = rows.after - len(vocabulary.new)
    body: list[Child] = [
        tag("p", f"{stay:,} of {rows.before:,} rows stay ({percent(stay / max(rows.before, 1))}){padding}.")
    ]
    if vocabulary.new:
        body.append(_new_tokens(vocabulary.new))
    if vocabulary.scripts:
        body.append(_scripts(vocabulary.scripts))
    if vocabulary.languages:
        body.append(_languages(vocabulary.languages))
    body.append(_reasons(vocabulary))
    if vocabulary.curves:
        body.append(_curves(vocabulary))
    return Section("vocabulary", "Vocabulary", tuple(body))


def _new_tokens(new: tuple[str, ...]) -> Markup:
    said = (
        f"{len(new):,} tokens are new. The row of each is the mean of the rows of the pieces that spelled it before: "
    )
    shown = (join(foreign(token), " ") for token in new[:_SHOWN_TOKENS])
    return tag("p", said, *shown, "…" if len(new) > _SHOWN_TOKENS else "", class_="tokens")


def _scripts(scripts: tuple[Script, ...]) -> Markup:
    most = _SHOWN_SCRIPTS if len(scripts) > _SHOWN_SCRIPTS + 1 else len(scripts)
    shown, rest = list(scripts[:most]), scripts[most:]
    if rest:
        others = Sizes(sum(one.tokens.before for one in rest), sum(one.tokens.after for one in rest))
        shown.append(Script("", f"{len(rest)} others", others))
    widest = max(script.tokens.before for script in shown) or 1
    drawn = [
        Bar(
            script.label,
            script.tokens.before / widest,
            script.tokens.after / widest,
            f"{script.tokens.after:,} of {script.tokens.before:,} kept ({percent(_share(script.tokens))})",
        )
        for script in shown
    ]
    rows: list[list[Child]] = [
        [script.label, script.name, f"{script.tokens.before:,}", f"{script.tokens.after:,}",
         f"{script.tokens.before - script.tokens.after:,}", percent(_share(script.tokens))]
        for script in scripts
    ]  # fmt: skip
    table = data_table(
        ["script or kind", "code", "tokens", "kept", "dropped", "kept, %"], rows, caption="Tokens by script or kind",
        text_columns=2,
    )  # fmt: skip
    key = legend([("filled", "kept"), ("outline", "dropped")])
    return figure("Tokens by script or kind", "tokens", join(bars(drawn), key), table=table)


def _share(sizes: Sizes) -> float:
    return sizes.after / max(sizes.before, 1)


def _languages(languages: tuple[KeptLanguage, ...]) -> Markup:
    widest = max((one.tokens or one.kept) for one in languages) or 1
    drawn = []
    for one in languages:
        of = f" of {one.tokens:,}" if one.tokens is not None else ""
        covered = f"; {percent(one.covered, 2)} of its occurrences" if one.covered is not None else ""
        text = f"{one.kept:,}{of} kept{covered}; {one.alone:,} for this language alone"
        drawn.append(Bar(f"{one.label} ({one.tag})", (one.tokens or one.kept) / widest, one.kept / widest, text))
    rows: list[list[Child]] = [
        [one.label, one.tag, "–" if one.tokens is None else f"{one.tokens:,}", f"{one.kept:,}",
         "–" if one.tokens is None else f"{one.tokens - one.kept:,}", f"{one.alone:,}",
         "–" if one.covered is None else percent(one.covered, 3)]
        for one in languages
    ]  # fmt: skip
    columns = [
        "language",
        "code",
        "tokens of its criterion",
        "kept",
        "dropped",
        "for it alone",
        "occurrences covered, %",
    ]
    table = data_table(columns, rows, caption="Tokens by language", text_columns=2)
    samples = [
        tag("p", tag("span", f"Kept for {one.label} alone, for instance: ", class_="note"),
            *(join(foreign(token), " ") for token in one.examples), class_="tokens")
        for one in languages
        if one.examples
    ]  # fmt: skip
    chart = join(bars(drawn), *samples)
    return figure("Tokens by language", "tokens that the language's criterion selects", chart, table=table)


def _reasons(vocabulary: Vocabulary) -> Markup:
    rows: list[list[Child]] = [[kind, f"{count:,}"] for kind, count in vocabulary.reasons]
    table = data_table(["kept for", "tokens"], rows, caption="Kept tokens by reason; a token may have several")
    return tag("details", tag("summary", "Why tokens are kept"), table)


def _curves(vocabulary: Vocabulary) -> Markup:
    curves = vocabulary.curves[:_SHOWN_CURVES]
    lines = [Line(curve.label, curve.points, tone) for tone, curve in enumerate(curves)]
    points = [
        Point(curve.tokens, curve.covered, f"{curve.label}: {curve.tokens:,} tokens, {percent(curve.covered, 3)}", tone)
        for tone, curve in enumerate(curves)
    ]
    words = [
        f"{curve.label}: {curve.tokens:,} tokens kept cover {percent(curve.covered, 3)} of the occurrences"
        + (f", asked for {percent(curve.asked, 3)}" if curve.asked is not None else "")
        for curve in curves
    ]
    chart = line_plot(
        lines,
        x_title="most frequent tokens kept (logarithmic)",
        y_title="share of occurrences, %",
        x_text=lambda value: count_text(value).replace(".00", ""),
        y_text=lambda value: f"{value * 100:.0f}",
        log_x=True,
        y_range=(0.0, 1.04),
        points=points,
        alternative="Coverage by number of tokens. " + "; ".join(words),
    )
    key = legend([(f"tone-{tone}", text) for tone, text in enumerate(words)])
    rows: list[list[Child]] = [
        [curve.label, f"{tokens:,}", percent(share, 4)] for curve in curves for tokens, share in curve.points[::4]
    ]
    table = data_table(
        ["criterion", "tokens", "occurrences covered, %"], rows, caption="Coverage curve, every fourth point"
    )
    remark = "The dot is what this slice keeps. --coverage moves it along this curve."
    return figure(
        "Coverage", "share of the occurrences in the criterion, %", join(chart, key), note=remark, table=table
    )


def texts_section(report: Report) -> Section | None:
    """How texts of kept and other languages are tokenised by the slice."""
    if not report.texts or report.vocabulary is None:
        return None
    widest = max(text.growth for text in report.texts)
    drawn = [
        Bar(
            text.name,
            1 / widest,
            text.growth / widest,
            f"×{figures(text.growth, 4)}; {percent(text.covered, 2)} of its tokens are kept",
            "kept" if text.growth < _SMALL_GROWTH else "grown",
        )
        for text in report.texts
    ]
    rows: list[list[Child]] = [
        [text.name, f"{text.units:,}", f"{text.tokens.before:,}", f"{text.tokens.after:,}", f"×{figures(text.growth, 4)}",
         percent(text.covered, 3), f"{text.identical:,}", f"{text.differing:,}", f"{text.unknown.before:,}",
         f"{text.unknown.after:,}"]
        for text in report.texts
    ]  # fmt: skip
    columns = ["text", "texts", "tokens before", "after", "growth", "kept, %", "identical", "differing"]
    columns += ["unknown before", "after"]
    table = data_table(columns, rows, caption="Texts encoded by the source and by the slice")
    key = legend([("outline", "source"), ("filled", "slice, under 1% more tokens"), ("grown", "slice, more tokens")])
    other = (
        "Other text still round-trips, in smaller pieces."
        if report.vocabulary.spells_bytes
        else "Other text is spelled in smaller pieces, and characters that were dropped become unknown."
    )
    body: list[Child] = [
        tag("p", f"Text that uses kept tokens only is encoded to the same tokens. {other}"),
        figure("Tokens needed for the same text", "times the source's tokens", join(bars(drawn), key), table=table),
    ]
    return Section("texts", "The same text, before and after", tuple(body))
