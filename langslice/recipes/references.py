"""`$NAME` in a recipe's entries: the file that another part makes, or the model itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from langslice.errors import RecipeError
from langslice.recipes.document import Recipe
from langslice.recipes.parts import INPUTS

MODEL: Final = "model"
"""The name of the recipe's own model."""
# Alone, before a weight or a count (`=0.5`, `:4`), or after a name (`mt=`).
_REFERENCE = re.compile(r"(?:^|(?<==))\$([A-Za-z][\w-]*)")


def references(value: Any) -> Iterator[str]:
    """Names that are as `$NAME` in a part's entries, once for each place."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
    elif isinstance(value, str):
        yield from (found[1] for found in _REFERENCE.finditer(value))


def resolved(value: Any, made: Mapping[str, Path]) -> Any:
    """A part's entries with the files in the place of `$NAME`."""
    if isinstance(value, Mapping):
        return {name: resolved(item, made) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item, made) for item in value]
    return _REFERENCE.sub(lambda found: str(made[found[1]]), value) if isinstance(value, str) else value


def input_names(document: Mapping[str, Any]) -> list[str]:
    """What may follow a `$`."""
    return [MODEL, *(name for kind in INPUTS for name in document.get(kind) or ())]


def check_references(recipe: Recipe) -> None:
    """Refuse a `$NAME` that nothing makes, and two inputs of one name. Raises RecipeError."""
    known = input_names(recipe.document)
    twice = [name for name in known if known.count(name) > 1]
    if twice:
        raise RecipeError(f"{recipe.place}: two inputs are called `{twice[0]}`", "a name stands for one file")
    for part, entries in recipe.document.items():
        for name in references(entries):
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise RecipeError(
                    f"{recipe.at(part, '')}: nothing is called `${name}`",
                    f"did you mean `${near[0]}`?" if near else f"there is {', '.join(f'${each}' for each in known)}",
                )
            if part in INPUTS and name != MODEL:
                raise RecipeError(f"{recipe.at(part, '')}: `${name}` cannot be here", "inputs are made from files")
