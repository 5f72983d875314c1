"""The head of the page and before and after by part."""

from __future__ import annotations

from langslice.reporting.charts import Bar, bars, data_table, figure, legend, stacked
from langslice.reporting.data import HiddenStates, Report, Sizes
from langslice.reporting.markup import Child, Markup, join, tag
from langslice.reporting.numbers import bytes_text, change_text, count_text, percent
from langslice.reporting.sections.section import Section, note

# Parts whose colour is fixed, so that two reports can be compared; others follow.
_TONES = {"vocabulary": 0, "attention": 1, "feed-forward": 2, "norm": 3}
_MOST_TONES = 7


def tones(report: Report) -> dict[str, int]:
    """Part -> number of its colour."""
    found = dict(_TONES)
    for part in report.parts:
        if part.name not in found:
            found[part.name] = min(max(found.values()) + 1, _MOST_TONES)
    return found


def headline(report: Report) -> str:
    """One sentence: what was kept of what."""
    kept = []
    if report.vocabulary is not None:
        names = [language.label for language in report.vocabulary.languages]
        rows = report.vocabulary.rows
        kept.append(f"{rows.after:,} of {rows.before:,} vocabulary rows" + (f" ({_listed(names)})" if names else ""))
    for stack in report.stacks:
        stay = sum(row.new is not None for row in stack.layers)
        where = "" if stack.name == "layers" else f" of the {stack.name}"
        kept.append(f"{stay} of {len(stack.layers)} layers{where}")
    if report.hidden is not None:
        kept.append(hidden_text(report.hidden))
    if report.sparsity is not None:
        kept.append(f"{percent(1 - report.sparsity.share)} of the weights of its linear layers")
    return f"Keeps {_listed(kept)}." if kept else "Keeps everything."


def hidden_text(hidden: HiddenStates) -> str:
    """How many dimensions of the hidden states are kept."""
    return f"{hidden.sizes.after:,.0f} of {hidden.sizes.before:,.0f} hidden dimensions" + (
        ", rotated first" if hidden.rotated else ""
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def verification_badge(report: Report) -> Markup:
    """In a word: whether the slice is verified."""
    if report.checks is None:
        return tag("p", "Not verified: verification was switched off", class_="badge open")
    failed = [check for check in report.checks if check.passed is False]
    undone = [check for check in report.checks if check.passed is None]
    if failed:
        return tag("p", f"Verification failed: {', '.join(check.name for check in failed)}", class_="badge bad")
    passed = len(report.checks) - len(undone)
    text = f"Verified: {passed} of {len(report.checks)} checks passed"
    return tag("p", f"{text}, {len(undone)} could not be made" if undone else text, class_="badge good")


def tiles(report: Report) -> Markup:
    """The sizes that matter, before and after."""
    shown = [_tile("Parameters", report.parameters, count_text)]
    if report.size_bytes is not None:
        shown.append(_tile("Size of the weights", report.size_bytes, bytes_text))
    if report.vocabulary is not None:
        shown.append(_tile("Vocabulary rows", report.vocabulary.rows, lambda value: f"{value:,.0f}"))
    for label, sizes in unit_totals(report).items():
        shown.append(_tile(label, sizes, lambda value: f"{value:,.0f}"))
    if report.sparsity is not None:
        share = percent(report.sparsity.share)
        linear = tag("dd", f"of {sum(one.size for one in report.sparsity.tensors):,} in linear layers", class_="change")
        shown.append(
            tag("div", tag("dt", "Weights set to zero"), tag("dd", share, class_="big"), linear, class_="tile")
        )
    return tag("dl", *shown, class_="tiles")


def unit_totals(report: Report) -> dict[str, Sizes]:
    """Layers, heads, neurons, experts and hidden dimensions of the whole model before and after, where something was removed."""
    rows = [row for stack in report.stacks for row in stack.layers]
    found = {}
    if rows:
        found["Layers"] = Sizes(len(rows), sum(row.new is not None for row in rows))
    heads = [unit for row in rows for unit in row.heads.values()]
    if heads:
        found["Attention heads"] = Sizes(sum(unit.total for unit in heads), sum(len(unit.kept) for unit in heads))
    neurons = [row.neurons for row in rows if row.neurons is not None]
    if neurons:
        found["Neurons"] = Sizes(sum(unit.total for unit in neurons), sum(len(unit.kept) for unit in neurons))
    experts = [row.experts for row in rows if row.experts is not None]
    if experts:
        found["Experts"] = Sizes(sum(unit.total for unit in experts), sum(len(unit.kept) for unit in experts))
    if report.hidden is not None:
        found["Hidden dimensions"] = report.hidden.sizes
    return found


def _tile(label: str, sizes: Sizes, text: object) -> Markup:
    write = text if callable(text) else str
    before = tag("span", write(sizes.before), class_="was")
    after = tag("span", write(sizes.after), class_="big")
    words = tag("span", " to ", class_="to")
    return tag(
        "div", tag("dt", label), tag("dd", before, words, after), tag("dd", change_text(sizes.change), class_="change"),
        class_="tile",
    )  # fmt: skip


def parts_section(report: Report) -> Section:
    """What was removed from where: parameters and bytes by part."""
    colours = tones(report)
    whole = max(report.parameters.before, report.parameters.after, 1)
    rows: list[list[Child]] = []
    drawn = []
    for part in report.parts:
        sizes = part.parameters
        text = f"{count_text(sizes.before)} to {count_text(sizes.after)} ({change_text(sizes.change)})"
        if part.size_bytes is not None:
            text += f"; {bytes_text(part.size_bytes.before)} to {bytes_text(part.size_bytes.after)}"
        drawn.append(
            Bar(_keyed(part.name, colours[part.name]), sizes.before / whole, sizes.after / whole, text,
                f"part-{colours[part.name]}")
        )  # fmt: skip
        rows.append(_row(part.name, part.tensors, part.parameters, part.size_bytes))
    tensors = Sizes(sum(p.tensors.before for p in report.parts), sum(p.tensors.after for p in report.parts))
    rows.append(_row("all", tensors, report.parameters, report.size_bytes))
    both = join(
        *(
            stacked(
                label,
                [(part.name, getattr(part.parameters, side) / whole, colours[part.name]) for part in report.parts],
                count_text(getattr(report.parameters, side)),
            )
            for label, side in (("before", "before"), ("after", "after"))
        )
    )
    columns = ["part", "tensors before", "after", "parameters before", "after", "change", "bytes before", "after"]
    table = data_table(columns, rows, caption="Tensors, parameters and bytes by part, before and after")
    key = legend([("outline", "before"), ("filled", "after, in the colour of the part")])
    body: list[Child] = [
        figure("The whole model", "parameters", both),
        figure("What was removed from where", "parameters, and bytes of weights", join(bars(drawn), key), table=table),
    ]
    if report.size_bytes is None:
        body.append(note("Bytes by part are not in this slice's record, which an earlier version wrote."))
    return Section("parts", "Before and after", tuple(body))


def _keyed(name: str, tone: int) -> Markup:
    return join(tag("span", class_=f"key part-{tone}", aria_hidden="true"), name)


def _row(name: str, tensors: Sizes, parameters: Sizes, size_bytes: Sizes | None) -> list[Child]:
    sizes = ("–", "–") if size_bytes is None else (f"{size_bytes.before:,}", f"{size_bytes.after:,}")
    return [
        name, f"{tensors.before:,}", f"{tensors.after:,}", f"{parameters.before:,}", f"{parameters.after:,}",
        change_text(parameters.change), *sizes,
    ]  # fmt: skip
