"""Weight pruning: zeros by tensor."""

from __future__ import annotations

import re

from langslice.reporting.charts import Bar, bars, data_table, figure, legend
from langslice.reporting.data import Report, Sparsity, TensorZeros
from langslice.reporting.markup import Child, Markup, breakable, join, tag
from langslice.reporting.numbers import percent
from langslice.reporting.sections.section import Section, note

_LAYER = re.compile(r"\.\d+\.")
# Request fields that say how, in the order in which they are read.
_HOW = ("score", "pattern", "sparsity", "allocation", "linears", "compute", "seed")


def sparsity_section(report: Report) -> Section | None:
    """None where no weight was pruned."""
    sparsity = report.sparsity
    if sparsity is None:
        return None
    zeros = sum(one.zeros for one in sparsity.tensors)
    size = sum(one.size for one in sparsity.tensors)
    body: list[Child] = [
        tag(
            "p",
            f"{zeros:,} of {size:,} weights in {len(sparsity.tensors)} tensors are zero ({percent(sparsity.share, 2)}).",
        ),
        _settings(sparsity),
        _by_linear(sparsity),
    ]
    body += [note(line) for line in sparsity.notes]
    return Section("sparsity", "Weights set to zero", tuple(body))


def _settings(sparsity: Sparsity) -> Markup:
    said = [(name, sparsity.request.get(name)) for name in _HOW]
    pairs = [
        join(tag("dt", name), tag("dd", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
        for name, value in said
        if value not in (None, [], "")
    ]
    if sparsity.prompts:
        given = ", ".join(f"{name}: {count:,}" for name, count in sparsity.prompts.items())
        pairs.append(join(tag("dt", "calibration data"), tag("dd", given)))
    return tag("dl", *pairs, class_="facts")


def _by_linear(sparsity: Sparsity) -> Markup:
    """One bar for each kind of linear layer, over all layers; every tensor in the table."""
    kinds: dict[str, list[TensorZeros]] = {}
    for one in sparsity.tensors:
        kinds.setdefault(_LAYER.sub(".*.", one.name), []).append(one)
    drawn = []
    for kind, tensors in kinds.items():
        zeros, size = sum(one.zeros for one in tensors), sum(one.size for one in tensors)
        shares = [one.zeros / max(one.size, 1) for one in tensors]
        spread = f", {percent(min(shares))} to {percent(max(shares))}" if len(tensors) > 1 else ""
        drawn.append(
            Bar(
                breakable(kind),
                1.0,
                zeros / max(size, 1),
                f"{percent(zeros / max(size, 1))} of {size:,} in {len(tensors)}{spread}",
            )
        )
    rows: list[list[Child]] = [
        [one.name, percent(one.asked), percent(one.zeros / max(one.size, 1), 2), f"{one.zeros:,}", f"{one.size:,}"]
        for one in sparsity.tensors
    ]
    columns = ["tensor", "asked, %", "zero, %", "zeros", "weights"]
    table = data_table(columns, rows, caption="Zeros by tensor", limit=2000)
    key = legend([("filled", "zero"), ("outline", "not zero")])
    return figure(
        "Sparsity by linear layer", "share of the weights that are zero, %", join(bars(drawn), key), table=table
    )
