"""A recipe as it is written: YAML with the line of every entry, for messages that name it.

Read by the rules of version 1.2, as editors do: `no` is a language and not false, `2:4` a pattern and not 124, `1e-6` a number.
An entry that is given twice is refused, where YAML takes the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langslice.errors import LangsliceError, RecipeError
from langslice.wording import ENTRIES, speaking

_MOST_VALUES = 200_000
_DEEPEST = 40

Lines = Mapping[tuple[str, ...], int]
"""Path of an entry, such as ("slice", "coverage") -> its line, from 1."""


@dataclass(frozen=True)
class Recipe:
    """What is asked, and where it is.

    document  part -> its entries; without entries that are null, and without parts that are false
    place     file, or how else to name it in messages
    lines     path of an entry, such as ("slice", "coverage") -> line in the file, from 1
    text      the file as it is; "" where there is none
    """

    document: Mapping[str, Any]
    place: str = "recipe"
    lines: Lines = field(default_factory=dict)
    text: str = ""

    def at(self, *path: str) -> str:
        """The place of an entry, for messages: `recipe.yaml:7, slice`."""
        return place_of(self.place, self.lines, path)


def place_of(place: str, lines: Lines, path: Sequence[str]) -> str:
    """File, line, and the part that an entry is in."""
    line = next((lines[tuple(path[:end])] for end in range(len(path), 0, -1) if tuple(path[:end]) in lines), None)
    return ", ".join(filter(None, [place if line is None else f"{place}:{line}", ".".join(path[:-1])]))


@contextmanager
def placed(recipe: Recipe, *path: str) -> Iterator[None]:
    """Say where in the recipe an error arose, and speak of options as of its entries."""
    try:
        with speaking(ENTRIES):
            yield
    except LangsliceError as error:
        raise type(error)(f"{recipe.at(*path)}: {error.message}", error.hint) from error


def read_yaml(path: Path) -> tuple[Any, dict[tuple[str, ...], int], str]:
    """A YAML file's data, the line of every entry of its mappings, and its text.

    Raises  RecipeError when it cannot be read, or gives an entry twice
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        loader = _loader(yaml)(text)
        node = loader.get_single_node()
        _refuse_endless(node, str(path))
        lines: dict[tuple[str, ...], int] = {}
        for where, line in _lines(node, ()):
            if where in lines:
                raise RecipeError(
                    f"{path}:{line}: `{'.'.join(where)}` is there twice", f"it is also in line {lines[where]}"
                )
            lines[where] = line
        document = None if node is None else loader.construct_document(node)
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such recipe", "`langslice init MODEL --languages ko,en -o recipe.yaml` writes one"
        ) from None
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{path}: not readable as YAML\n  {error}", "see the guide on recipes") from error
    return document, lines, text


def _refuse_endless(document: Any, place: str) -> None:
    """Refuse aliases that unfold without an end, or nearly so."""
    waiting, seen = [] if document is None else [(document, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise RecipeError(
                f"{place}: more than {_MOST_VALUES:,} values, or {_DEEPEST} levels, once its aliases are unfolded",
                "write the values out instead of nesting aliases",
            )
        if node.id == "mapping":
            waiting += [(each, depth + 1) for pair in node.value for each in pair]
        elif node.id == "sequence":
            waiting += [(each, depth + 1) for each in node.value]


def _loader(yaml: Any) -> Any:
    """A loader by the rules of YAML 1.2's core schema."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Null, true, false, whole and other numbers; all else is text."""

    Loader.yaml_implicit_resolvers = {}
    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", "~nN"),
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+", "-+0123456789"),
        ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
         "-+0123456789."),
        ("merge", r"<<", "<"),
    ):  # fmt: skip
        starts = [*first, *([""] if tag == "null" else [])]
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), starts)
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
    return Loader


def _lines(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path of every entry of every mapping, with its line, in the order of the file."""
    if node is None or node.id != "mapping":
        return
    for key, value in node.value:
        here = (*path, str(key.value))
        if key.tag != "tag:yaml.org,2002:merge":
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
