"""What became of published findings: the last list of each page on a paper, in one table.

    python benchmarks/real/papers.py

Reads results/real/*.md of the pages below, of which each ends in lines of the form "- finding → **outcome**: figure"; nothing is
measured. Writes results/real/papers.md.
"""

from __future__ import annotations

import re

from common import RESULTS, table, write_page

PAGES = ("kim2024", "kim2024_features", "kimkim2026", "mwanda", "language_overlap", "steering")
OUTCOMES = ("holds", "does not hold", "cannot be told here", "not seen")
LINE = re.compile(r"- (?P<finding>.+?) → \*\*(?P<outcome>.+?)\*\*[:,]? ?(?P<figure>.*)")


def findings(page: str) -> list[dict[str, str]]:
    """Findings of a page with their outcomes and figures.

    Raises  ValueError for a page without any, and for an outcome that is none
    """
    found = [one.groupdict() for one in map(LINE.fullmatch, _lines(page)) if one]
    if not found:
        raise ValueError(f"{page}.md ends in no list of findings")
    for one in found:
        if not one["outcome"].startswith(OUTCOMES):
            raise ValueError(f"{page}.md: {one['outcome']!r} is none of {', '.join(OUTCOMES)}")
    return found


def _lines(page: str) -> list[str]:
    """Lines of a page, an item of a list that goes on over several being one."""
    text = (RESULTS / f"{page}.md").read_text(encoding="utf-8")
    return re.sub(r"\n {2}(?=\S)", " ", text).splitlines()


def page(document: dict[str, list[dict[str, str]]]) -> str:
    """The page: a row for each finding of each page."""
    rows = [
        [one["finding"], one["outcome"], one["figure"], f"[{name}]({name}.md)"]
        for name, found in document.items()
        for one in found
    ]
    counts = {name: sum(row[1].startswith(name) for row in rows) for name in OUTCOMES}
    absent = [name for name in PAGES if name not in document]
    return f"""# What became of published findings

`benchmarks/real/papers.py` gathers the last list of each page; each page says how it was measured, on gemma-3-270m unless it says
otherwise. {", ".join(f"{name}: {count}" for name, count in counts.items())}. "Not seen" is an interval that holds zero: with
more text it might be told.

{table(["finding", "here", "figure", "page"], rows, text_columns=4)}
{f"Not measured yet: {', '.join(absent)}." if absent else ""}
"""


def main() -> None:
    """Gather, and write the page."""
    document = {name: findings(name) for name in PAGES if (RESULTS / f"{name}.md").is_file()}
    write_page("papers", document, page(document))


if __name__ == "__main__":
    main()
