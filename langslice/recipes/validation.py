"""A recipe, checked before anything is done: what is not understood is refused with its place, and the nearest that is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from langslice.errors import RecipeError
from langslice.options import by_field, codes, renamed
from langslice.options.values import expected, is_json, misfit, near_value
from langslice.planning.options import PlanOptions
from langslice.recipes.document import Lines, Recipe, place_of, placed, read_yaml
from langslice.recipes.parts import STEPS, SWEEPING, RecipePart, parts
from langslice.recipes.references import MODEL, check_references
from langslice.recipes.schema import Schema, recipe_schema

_NAME = re.compile(r"[A-Za-z][\w-]*")


def load_recipe(recipe: str | Path | Mapping[str, Any]) -> Recipe:
    """Read and check a recipe of one run.

    recipe  a file, or its content
    Raises  RecipeError
    """
    if isinstance(recipe, Mapping):
        document, text, place = dict(recipe), "", "recipe"
        lines: dict[tuple[str, ...], int] = {}
    else:
        document, lines, text = read_yaml(Path(recipe))
        place = str(recipe)
    document = today(document)
    check_recipe(document, place=place, lines=lines)
    found = Recipe(_plain(document), place, lines, text)
    _check_run(found)
    return found


def today(document: Any) -> Any:
    """A recipe with the names that its entries have today; what is no recipe stays as it is. Raises RecipeError."""
    if not isinstance(document, Mapping):
        return document
    return {name: _today(value, parts()[name]) if name in parts() else value for name, value in document.items()}


def _today(value: Any, part: RecipePart) -> Any:
    if isinstance(value, list):
        return [_today(each, part) for each in value]
    if not isinstance(value, Mapping):
        return value
    if part.named:
        inner = replace(part, named=False)
        return {name: _today(each, inner) for name, each in value.items()}
    return renamed(value, part.entries.values(), RecipeError)


def check_recipe(document: Any, *, place: str, lines: Lines | None = None, sweep: bool = False) -> None:
    """Refuse a recipe with entries that no part knows, or with values of a kind that they do not take.

    sweep   only what a sweep can vary; its lists have been taken apart
    Raises  RecipeError with the place, and the nearest entry that is known
    """
    check_parts(document, place=place, lines=lines, sweep=sweep)
    _check(document, recipe_schema(), (), place, lines or {})


def check_parts(document: Any, *, place: str, lines: Lines | None = None, sweep: bool = False) -> None:
    """Refuse what is no mapping of parts that there are. Raises RecipeError."""
    if not isinstance(document, Mapping):
        raise RecipeError(f"{place}: expected a mapping, found {type(document).__name__}", "it begins with `model: …`")
    known = ("model", "revision", *parts())
    for name in document:
        where = place_of(place, lines or {}, (str(name),))
        if name not in known:
            refuse_unknown(where, name, [each for each in known if not sweep or each in SWEEPING])
        if sweep and name not in SWEEPING:
            raise RecipeError(
                f"{where}: `{name}` has no meaning in a sweep", "leave it out; `langslice run` does it, for one run"
            )


def _check(value: Any, schema: Schema, path: tuple[str, ...], place: str, lines: Lines) -> None:
    if isinstance(value, Mapping) and "object" in schema["type"]:
        _check_names(value, schema, path, place, lines)
        return
    fault = misfit(value, schema)
    if fault is not None:
        if len(path) == 1 and path[0] in parts():  # a part that is no mapping is told by its type, a value by itself
            fault = f"must be {expected(schema)}, found {type(value).__name__}"
        where = place_of(place, lines, path)
        raise RecipeError(f"{where}: `{_entry(path)}` {fault}", _hint(value, schema, path))


def _hint(value: Any, schema: Schema, path: tuple[str, ...]) -> str | None:
    if isinstance(value, list) and path and "array" not in schema["type"]:
        return "a list spans an axis: `langslice sweep` runs a recipe with lists"
    if is_json(value, "number") and not {"number", "integer"} & set(schema["type"]) and "string" in schema["type"]:
        return f'as text it is in quotes: {path[-1]}: "{value}"'
    return near_value(value, schema) or schema.get("description")


def _check_names(value: Mapping[Any, Any], schema: Schema, path: tuple[str, ...], place: str, lines: Lines) -> None:
    known = schema.get("properties", {})
    for name, inner in value.items():
        here = (*path, str(name))
        if isinstance(schema["additionalProperties"], dict):
            if not _NAME.fullmatch(str(name)) or name == MODEL:
                raise RecipeError(
                    f"{place_of(place, lines, here)}: `{name}` is no name", "letters, digits, - and _; not `model`"
                )
            _check(inner, schema["additionalProperties"], here, place, lines)
        elif name not in known:
            refuse_unknown(place_of(place, lines, here), name, list(known))
        else:
            _check(inner, known[name], here, place, lines)
    for name in schema.get("required", ()):
        if value.get(name) is None:
            raise RecipeError(
                f"{place_of(place, lines, (*path, name))}: `{name}` is missing", known[name].get("description")
            )


def refuse_unknown(where: str, name: Any, known: Sequence[str]) -> None:
    """Refuse an entry, with the nearest that is known. Raises RecipeError."""
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"entries are {', '.join(known) or 'none'}"
    if name == "token":
        hint = "a recipe holds no secrets: set HF_TOKEN, or log in with `hf auth login`"
    elif name == "revision":
        hint = "it is next to `model`, for all parts"
    elif name == "cache_dir":
        hint = "a recipe holds no places of one machine: set HF_HUB_CACHE"
    elif name == "heal" and "slice" in known:
        hint = "this version of langslice does not heal"
    raise RecipeError(f"{where}: unknown entry `{name}`", hint)


def _entry(path: Sequence[str]) -> str:
    return path[-1] if path else "the recipe"


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without nulls and without switches that are off; `true` as an empty part. `verify: false` stays, which asks for something."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if value is None or (value is False and name != "verify"):
            continue
        found[name] = {} if value is True else without_nulls(value)
    return found


def without_nulls(value: Any) -> Any:
    """A mapping without entries that are null, at any depth."""
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return value


def _check_run(recipe: Recipe) -> None:
    """Refuse parts that contradict each other, before anything is done."""
    document = recipe.document
    work = [name for name in document if name not in ("model", "revision", "verify", "report", "restore")]
    if not work:
        raise RecipeError(f"{recipe.place}: nothing to do", f"add some of {', '.join(parts())}")
    if "model" not in document and any(name != "demonstrations" for name in document):
        raise RecipeError(f"{recipe.place}: `model` is missing", "a folder, a model on the hub, or mini")
    if "plan" in document and any(name in document for name in (*STEPS, "verify", "restore", "report")):
        raise RecipeError(f"{recipe.at('plan')}: `plan` stands for a plan without a slice", "`slice` plans and slices")
    steps = [name for name in document if name in STEPS]
    if "heal" in steps[:-1]:
        raise RecipeError(f"{recipe.at('heal')}: `heal` comes after `{steps[-1]}`, not before it", "write it below")
    if steps and "beside" in document.get("evaluate", {}):
        raise RecipeError(
            f"{recipe.at('evaluate', 'beside')}: `beside` stands for what the recipe would make, and it makes something itself",
            "leave it out",
        )
    if "verify" in document and "slice" not in steps:
        raise RecipeError(f"{recipe.at('verify')}: `verify` has no effect without `slice`", "leave it out")
    if "restore" in document and not {"heal", "slice"} <= set(steps):
        raise RecipeError(f"{recipe.at('restore')}: `restore` needs `slice` and `heal`", "leave it out, or add them")
    if "report" in document and "slice" not in steps:
        raise RecipeError(
            f"{recipe.at('report')}: a report is of a slice, and there is no `slice`", "leave it out, or add one"
        )
    check_references(recipe)
    _check_values(recipe)


def _check_values(recipe: Recipe) -> None:
    """Ask the rooms themselves what they think of their parts, as far as that needs no model."""
    from langslice.planning.weights import weights_request
    from langslice.recipes.execution import evaluation_settings, heal_settings

    document = recipe.document
    if "evaluate" in document:
        with placed(recipe, "evaluate", ""):
            evaluation_settings(document["evaluate"])
    if "heal" in document:
        with placed(recipe, "heal", ""):
            heal_settings(document["heal"])
    for name in ("plan", "slice"):
        if name in document:
            with placed(recipe, name, ""):
                _check_choice(document[name])
                weights_request(by_field(PlanOptions, document[name]))


def _check_choice(entries: Mapping[str, Any]) -> None:
    from langslice.planning.validate import refuse_beside_plan
    from langslice.vocabulary.languages import parse_languages

    if "plan" in entries:
        refuse_beside_plan({name: value for name, value in entries.items() if name != "plan"})
    parse_languages(codes(entries.get("languages")))
