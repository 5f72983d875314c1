"""A recipe: which model, what is done to it, how it is evaluated. A list anywhere in it spans an axis of the grid.

    model: mini
    slice: {languages: "ko,en", coverage: [0.9, 0.99, 0.999]}     # keywords of langslice.slice
    sparsify: {sparsity: [0.3, 0.5], keep: {kind: mt, languages: "fr,en", count: 20}}
    evaluate: {tasks: perplexity, languages: "ko,en", limit: 50}  # keywords of langslice.evaluate.run.evaluate

The steps between model and evaluate are done in the order of the file. A value that is itself a list is written in a list:
`[["a.txt", "b.txt"]]`. A null leaves its entry out: `slice: [null, {languages: ko}]` compares with the whole model.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Final

from langslice.errors import RecipeError

_MOST_VALUES: Final = 100_000
_DEEPEST: Final = 40
_MOST_RUNS: Final = 100_000
STEPS: Final = ("slice", "sparsify")
_ENTRIES: Final = ("model", *STEPS, "evaluate")
# Of a demonstration set in `sparsify`: what it shows, in which languages, and how it is laid out.
DEMONSTRATION_ENTRIES: Final = ("kind", "languages", "data", "path", "text_field", "shots", "count", "separator", "order",
                                "skip", "seed", "condition")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One point of the grid.

    recipe  the recipe without lists that span an axis, and without nulls
    axes    dotted path of each axis -> the value there, as text
    """

    recipe: Mapping[str, Any]
    axes: Mapping[str, str]

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done to the model, in order."""
        return tuple(name for name in self.recipe if name in STEPS)

    @property
    def name(self) -> str:
        """Such as `slice.coverage=0.9, evaluate.shots=4`; the model where nothing varies."""
        return ", ".join(f"{path}={value}" for path, value in self.axes.items()) or str(self.recipe["model"])


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file.

    Raises  RecipeError when it cannot be read, or is no mapping with a model and an evaluation
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe", "see the guide on sweeps") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not readable as YAML\n  {error}", "see the guide on sweeps") from error
    _refuse_endless(document, str(path))
    return check_recipe(document, place=str(path))


def _refuse_endless(document: Any, place: str) -> None:
    """Refuse aliases that unfold without an end, or nearly so."""
    waiting, seen = [(document, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise RecipeError(
                f"{place}: more than {_MOST_VALUES:,} values, or {_DEEPEST} levels, once its aliases are unfolded",
                "write the values out instead of nesting aliases",
            )
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        waiting += [(item, depth + 1) for item in below]


def check_recipe(document: Any, *, place: str) -> dict[str, Any]:
    """Refuse a recipe that lacks what every one needs; its entries are checked for each run."""
    if not isinstance(document, dict):
        raise RecipeError(f"{place}: expected a mapping, found {type(document).__name__}", "it begins with `model: …`")
    _refuse_unknown(place, document, _ENTRIES)
    for entry in ("model", "evaluate"):
        if not document.get(entry):
            raise RecipeError(f"{place}: `{entry}` is missing", "a recipe names a model and how to evaluate it")
    return document


def expand(document: Mapping[str, Any], *, place: str = "recipe") -> list[Run]:
    """Every point of the grid, the last axis running fastest; each is checked.

    Raises   RecipeError for unknown entries, wrong types, and two equal points
    Example  expand({"model": "m", "slice": {"coverage": [0.9, 0.99]}, "evaluate": {"tasks": "speed"}}) has two runs
    """
    runs = [Run(_without_nulls(recipe), axes) for recipe, axes in islice(_points(document, ""), _MOST_RUNS + 1)]
    if len(runs) > _MOST_RUNS:
        raise RecipeError(f"{place}: the grid has more than {_MOST_RUNS:,} points", "leave some values out")
    seen: dict[str, Run] = {}
    for run in runs:
        check_run(run, place=place)
        text = json.dumps(run.recipe, sort_keys=True, default=str)
        if text in seen:
            raise RecipeError(f"{place}: two points of the grid are the same: {run.name}", "remove the repeated value")
        seen[text] = run
    return runs


def _points(node: Any, path: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """A node's values with their places on the axes below it."""
    if isinstance(node, dict):
        yield from _mapping_points(list(node.items()), path)
    elif isinstance(node, list):
        for item in node:
            # A list in a list is one value.
            found = iter([(item, {})]) if isinstance(item, list) else _points(item, path)
            for value, axes in found:
                yield value, {path: _label(item), **axes}
    else:
        yield node, {}


def _mapping_points(entries: Sequence[tuple[Any, Any]], path: str) -> Iterator[tuple[dict[Any, Any], dict[str, str]]]:
    if not entries:
        yield {}, {}
        return
    (name, node), rest = entries[0], entries[1:]
    for value, axes in _points(node, f"{path}.{name}" if path else str(name)):
        for values, more in _mapping_points(rest, path):
            yield {name: value, **values}, {**axes, **more}


def _label(value: Any) -> str:
    """A value as text; of a mapping, what stands in it."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={_label(item)}" for name, item in value.items())
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def check_run(run: Run, *, place: str) -> None:
    """Refuse entries that no step knows.

    Raises  RecipeError, with the nearest entry that is known
    """
    for step in (*run.steps, "evaluate"):
        entries = run.recipe.get(step)
        if not isinstance(entries, dict):
            raise RecipeError(
                f"{place}: `{step}` must be a mapping, found {type(entries).__name__}", f"{step}: {{name: value}}"
            )
        _refuse_unknown(f"{place}, {step}", entries, step_entries(step))
        for name in ("keep", "avoid"):
            if step == "sparsify" and name in entries:
                if not isinstance(entries[name], dict):
                    raise RecipeError(f"{place}: `sparsify.{name}` must be a mapping", "{kind: mt, languages: 'fr,en'}")
                _refuse_unknown(f"{place}, sparsify.{name}", entries[name], DEMONSTRATION_ENTRIES)
    if not isinstance(run.recipe.get("model"), str):
        raise RecipeError(
            f"{place}: `model` must be text, found {run.recipe.get('model')!r}", "a folder, hub id, or mini"
        )


def step_entries(step: str) -> tuple[str, ...]:
    """What may stand in a step of a recipe."""
    if step == "slice":
        from langslice.choice import Choice

        return tuple(Choice.__annotations__)
    if step == "evaluate":
        from langslice.evaluate.run import evaluate

        return tuple(name for name in inspect.signature(evaluate).parameters if name not in ("model", "out", "report"))
    from dataclasses import fields

    return (*(field.name for field in fields(sparsity_module().SparsityRequest)), "keep", "avoid")


def sparsity_module() -> Any:
    """The room that prunes weights. Raises RecipeError where this installation has none."""
    from importlib import import_module

    try:
        return import_module("langslice.sparsity")
    except ImportError as error:
        raise RecipeError("this version of langslice does not prune weights", "leave `sparsify` out") from error


def _refuse_unknown(place: str, entries: Mapping[Any, Any], known: Sequence[str]) -> None:
    for name in entries:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"entries are {', '.join(known)}"
            raise RecipeError(f"{place}: unknown entry `{name}`", hint)
