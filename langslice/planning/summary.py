"""What a plan keeps, in words: for a terminal, an interpreter and a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from langslice.formatting import number_runs

if TYPE_CHECKING:
    from langslice.planning.plan import SlicePlan
    from langslice.structure.kept import Kept


def kept_text(plan: SlicePlan) -> str:
    """What a plan keeps, in a line."""
    padding = f" and {len(plan.padding)} rows of padding" if plan.padding else ""
    share = len(plan.kept) / max(plan.rows, 1)
    vocabulary = f"{len(plan.kept):,} of {plan.rows:,} vocabulary rows ({share:.1%}){padding}"
    if plan.keeps_vocabulary:
        vocabulary = f"all {plan.rows:,} vocabulary rows"
    return vocabulary if plan.structure is None else f"{_structure_text(plan.structure)}, {vocabulary}"


def _structure_text(structure: Kept) -> str:
    """Which layers stay, and in how many of them heads and neurons go."""
    parts = [f"{stack} {','.join(number_runs(layers))}" for stack, layers in structure.layers.items()]
    cut = {"heads": structure.heads, "neurons": structure.neurons}
    for unit, places in cut.items():
        for place, rows in places.items():
            sizes = sorted({len(stay) for stay in rows.values()})
            span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
            parts.append(f"{span} {unit} in {len(rows)} {'layer' if len(rows) == 1 else 'layers'} of {place}")
    return f"{'; '.join(parts)} ({structure.style})"


def reason_counts(reasons: Iterable[str]) -> Mapping[str, int]:
    """How many tokens each kind of reason keeps, the most first; a token may have several."""
    counted: dict[str, int] = {}
    for reason in reasons:
        for kind in {part.split(" of ")[0].split(" by ")[0] for part in reason.split(", ")}:
            counted[kind] = counted.get(kind, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: -item[1]))


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A small table for notebooks; the first column is text, the others are numbers."""
    style = ' style="text-align: right"'
    cells = "".join(
        "<tr>" + "".join(f"<td{style if place else ''}>{escape(text)}</td>" for place, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{names}</tr></thead><tbody>{cells}</tbody></table>"
