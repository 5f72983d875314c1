"""What a person has chosen so far: read from the query of a page, written into the links to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from langslice.errors import PlanError
from langslice.options import codes
from langslice.vocabulary.languages import parse_languages

_LONGEST_TEXT: Final = 2000
_LONGEST_CODES: Final = 200
_MOST_VALUES: Final = 10_000

Query = Mapping[str, list[str]]
"""Name -> its values, as `parse_qs` gives them."""


@dataclass(frozen=True)
class Wish:
    """A choice that is not complete yet.

    model         name on the shelf; "" where none is picked
    languages     codes with commas
    rows          most tokens to keep; None for the whole choice
    layers        layers to drop, "4" or "decoder.2"
    heads         heads to drop, "3:0,5" for the layer 3, or "decoder.cross.2:1"
    form          in which form they go, as `output_style` names them; "" for the first that fits
    text          to read
    ask           whether models answer it
    """

    model: str = ""
    languages: str = ""
    rows: int | None = None
    layers: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    form: str = ""
    text: str = ""
    ask: bool = False

    def query(self, **changes: Any) -> str:
        """The wish as a query, with changes."""
        said = replace(self, **changes)
        pairs = [("model", said.model), ("languages", said.languages), ("rows", str(said.rows or ""))]
        pairs += [("layer", each) for each in said.layers] + [("head", each) for each in said.heads]
        pairs += [("form", said.form), ("text", said.text)]
        return urlencode([pair for pair in pairs if pair[1]])

    def given(self) -> dict[str, Any]:
        """The options that it amounts to, by the names that `plan` and `slice` take."""
        asked = {
            "languages": self.languages, "max_vocab": self.rows, "drop_layers": self.layers, "drop_heads": self.heads,
            "output_style": self.form,
        }  # fmt: skip
        return {name: value for name, value in asked.items() if value}


def read_wish(query: Query) -> Wish:
    """A wish from a query. Raises PlanError for what cannot be one, LanguageError for what is no language."""
    languages = ",".join(
        code.strip() for text in query.get("languages", []) for code in text.split(",") if code.strip()
    )
    text = _last(query, "text")
    rows = _last(query, "rows").replace(",", "").strip()
    if rows and not (rows.isascii() and rows.isdigit() and len(rows) < 10 and int(rows)):
        raise PlanError(f"{rows[:40]!r} is no number of rows", "write a number such as 4000")
    if len(text) > _LONGEST_TEXT:
        raise PlanError(
            f"the text has {len(text):,} characters, and the page reads {_LONGEST_TEXT:,}", "a sentence will do"
        )
    if len(languages) > _LONGEST_CODES or sum(map(len, query.values())) > _MOST_VALUES:
        raise PlanError("the request says more than a page can ask")
    parse_languages(codes(languages))
    model, form = _last(query, "model"), _last(query, "form")
    layers = tuple(dict.fromkeys(query.get("layer", [])))
    return Wish(
        model,
        languages,
        int(rows) if rows else None,
        layers,
        _joined(query.get("head", [])),
        form,
        text.strip(),
        "ask" in query,
    )


def _last(query: Query, name: str) -> str:
    return query.get(name, [""])[-1]


def _joined(heads: Iterable[str]) -> tuple[str, ...]:
    """Heads of one layer together: 3:0 and 3:5 are 3:0,5."""
    found: dict[str, dict[str, None]] = {}
    for each in heads:
        where, _, numbers = each.partition(":")
        found.setdefault(where, {}).update(dict.fromkeys(numbers.split(",")))
    return tuple(f"{where}:{','.join(numbers)}" for where, numbers in found.items())
