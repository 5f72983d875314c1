"""From a command line to its recipe: the same entries under the part of the command's name, as YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langslice.errors import RecipeError
from langslice.options import renamed

HEAD = "# langslice run recipe.yaml -o WORK\n"


def part_recipe(part: str, model: str | None, given: Mapping[str, Any], *, name: str | None = None) -> dict[str, Any]:
    """The recipe that a command amounts to.

    part   of the recipe
    model  None where the command reads none
    given  what was asked, by the names of the options; where to write, and secrets are left out
    name   what the file that it makes is called, of parts that are named
    Raises  RecipeError for a value that no recipe can say
    """
    from langslice.recipes.parts import parts
    from langslice.recipes.validation import check_recipe

    if given.get("trust_remote_code"):
        raise RecipeError(
            "no recipe trusts the code of a model folder", hint="give --trust-remote-code to the command itself"
        )
    entries = parts()[part].entries
    told = {
        name: value
        for name, value in renamed(given, entries.values()).items()
        if name in entries and value is not None and value not in ((), [])
    }
    recipe: dict[str, Any] = {} if model is None else {"model": str(model)}
    if given.get("revision") is not None:
        recipe["revision"] = given["revision"]
    recipe[part] = told if name is None else {name: told}
    check_recipe(recipe, place="recipe")
    return recipe


def input_name(out: Path) -> str:
    """What the file of `-o` is called in a recipe: `counts/web.parquet` is `web`."""
    return re.sub(r"^[^A-Za-z]+|[^\w-]+", "-", out.stem).strip("-") or "made"


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML, its parts apart from each other."""
    import yaml

    blocks = [
        yaml.safe_dump({name: _plain(value)}, allow_unicode=True, sort_keys=False, width=110, default_flow_style=False)
        for name, value in recipe.items()
    ]
    return HEAD + "\n".join(blocks)


def _plain(value: Any) -> Any:
    """As YAML says it: paths as text, and one value of several alone."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 and isinstance(items[0], str) else items
    return str(value) if isinstance(value, Path) else value
