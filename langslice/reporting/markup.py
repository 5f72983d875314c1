"""HTML elements as text, with everything escaped that does not come from this package.

Text from a model can be hostile: tokens that are tags, that turn the reading direction of what follows, or that are no
valid Unicode at all. Such characters are spelled out, so that what is read is what is there.
"""

from __future__ import annotations

import re
from html import escape
from typing import TypeAlias

# Elements without an end tag.
_VOID = frozenset({"meta", "br", "hr", "col", "img", "link", "input"})
# Control characters, lone surrogates, non-characters, and marks that turn the direction of other text or cannot be seen.
_UNSEEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffb\ufffe\uffff]"
)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | Markup | None"


def visible(text: str) -> str:
    """Text with characters spelled out that would not show, or would change how their surroundings show.

    Example  "a", the mark U+202E and "b" become "a⟨U+202E⟩b"
    """
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def text_of(child: Child) -> str:
    """A child as HTML: escaped, unless it is Markup; nothing for None."""
    if child is None:
        return ""
    return str(child) if isinstance(child, Markup) else escape(visible(str(child)), quote=True)


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Make an element, its text escaped: a paragraph of "a < b" is <p class="note">a &lt; b</p>.

    attributes  `class_` is class, other underscores are hyphens; None and False leave an attribute out, True gives none
                a value
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{''.join(text_of(child) for child in children)}</{name}>")


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    shown = f"{value:.6g}" if isinstance(value, float) else visible(str(value))
    return f' {name}="{escape(shown, quote=True)}"'


def join(*children: Child) -> Markup:
    """Several children as one."""
    return Markup("".join(text_of(child) for child in children))


def breakable(name: str) -> Markup:
    """A dotted name that may be broken after its dots and underscores."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", text_of(name)))


def foreign(text: str) -> Markup:
    """A token or another piece of the model's text: its direction does not leak into its surroundings."""
    return tag("bdi", text, class_="token")
