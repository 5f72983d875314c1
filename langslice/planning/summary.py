"""What a plan keeps, in words: for a terminal, an interpreter and a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


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
