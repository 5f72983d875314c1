"""What a section of the page is."""

from __future__ import annotations

from dataclasses import dataclass

from langslice.reporting.markup import Child, Markup, tag


@dataclass(frozen=True)
class Section:
    """A heading of the second level, its anchor, and what is under it."""

    anchor: str
    title: str
    body: tuple[Child, ...]

    def markup(self) -> Markup:
        """The section as HTML."""
        heading = f"{self.anchor}-title"
        return tag("section", tag("h2", self.title, id=heading), *self.body, id=self.anchor, aria_labelledby=heading)


def paragraph(*children: Child) -> Markup:
    """Running text."""
    return tag("p", *children)


def note(*children: Child) -> Markup:
    """A remark in small type."""
    return tag("p", *children, class_="note")


def subheading(text: Child) -> Markup:
    """A heading of the third level."""
    return tag("h3", text)
