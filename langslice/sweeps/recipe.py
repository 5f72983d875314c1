"""A recipe: which model, what is done to it, how it is evaluated. A list anywhere in it spans an axis of the grid.

    model: mini
    slice: {languages: "ko,en", coverage: [0.9, 0.99, 0.999]}     # keywords of langslice.slice
    sparsify: {sparsity: [0.3, 0.5], keep: {kind: mt, languages: "fr,en", count: 20}}
    evaluate: {tasks: perplexity, languages: "ko,en", limit: 50}  # keywords of langslice.evaluation.main.evaluate

The steps between model and evaluate are done in the order of the file. A value that is itself a list is written in a list:
`[["a.txt", "b.txt"]]`. A null leaves its entry out: `slice: [null, {languages: ko}]` compares with the whole model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from langslice.errors import RecipeError
from langslice.recipes.document import Recipe, place_of, read_yaml
from langslice.recipes.parts import STEPS
from langslice.recipes.references import check_references
from langslice.recipes.validation import check_parts, check_recipe, today, without_nulls

_MOST_RUNS = 100_000


@dataclass(frozen=True)
class SweepRun:
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


def load_grid(recipe: str | Path | Mapping[str, Any]) -> Recipe:
    """Read a recipe with lists: a file, or its content.

    Raises  RecipeError when it cannot be read, or is no mapping with a model and an evaluation
    """
    if isinstance(recipe, str | Path):
        document, lines, text = read_yaml(Path(recipe))
        return check_grid(Recipe(document, str(recipe), lines, text))
    return check_grid(Recipe(recipe))


def check_grid(grid: Recipe) -> Recipe:
    """Refuse a recipe that lacks what every sweep needs; its entries are checked for each run. Raises RecipeError."""
    grid = replace(grid, document=today(grid.document))
    check_parts(grid.document, place=grid.place, lines=grid.lines, sweep=True)
    for entry in ("model", "evaluate"):
        if not grid.document.get(entry):
            raise RecipeError(f"{grid.place}: `{entry}` is missing", "a recipe names a model and how to evaluate it")
    return grid


def expand(grid: Recipe) -> list[SweepRun]:
    """Every point of the grid, the last axis running fastest; each is checked.

    Raises   RecipeError for unknown entries, wrong types, and two equal points
    Example  expand(Recipe({"model": "m", "slice": {"coverage": [0.9, 0.99]}, "evaluate": {"tasks": "speed"}})) has two runs
    """
    runs = [
        SweepRun(without_nulls(recipe), axes) for recipe, axes in islice(_points(grid.document, ""), _MOST_RUNS + 1)
    ]
    if len(runs) > _MOST_RUNS:
        raise RecipeError(f"{grid.place}: the grid has more than {_MOST_RUNS:,} points", "leave some values out")
    seen: dict[str, SweepRun] = {}
    for run in runs:
        check_run(run, grid)
        text = json.dumps(run.recipe, sort_keys=True, default=str)
        if text in seen:
            raise RecipeError(
                f"{grid.place}: two points of the grid are the same: {run.name}", "remove the repeated value"
            )
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
    """A value as text; of a mapping, what is in it."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={_label(item)}" for name, item in value.items())
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def check_run(run: SweepRun, grid: Recipe) -> None:
    """Refuse entries that no part knows, and values that it does not take.

    Raises  RecipeError, with the nearest entry that is known
    """
    for entry in ("model", "evaluate"):
        if not run.recipe.get(entry):
            raise RecipeError(
                f"{place_of(grid.place, grid.lines, (entry,))}: a point of the grid has no `{entry}`",
                "leave null out of its list",
            )
    check_recipe(run.recipe, place=grid.place, lines=grid.lines, sweep=True)
    if "beside" in run.recipe["evaluate"]:
        raise RecipeError(
            f"{place_of(grid.place, grid.lines, ('evaluate', 'beside'))}: `beside` has no meaning in a sweep",
            "its runs are measured next to `model`",
        )
    check_references(Recipe(run.recipe, grid.place, grid.lines))
    _check_tasks(run, grid)


def _check_tasks(run: SweepRun, grid: Recipe) -> None:
    """Refuse unknown tasks before the first of many runs. Raises RecipeError."""
    from langslice.errors import TaskError
    from langslice.evaluation.task_registry import check_task
    from langslice.options import codes

    try:
        for name in codes(run.recipe["evaluate"].get("tasks", ())):
            check_task(name)
    except TaskError as error:
        place = place_of(grid.place, grid.lines, ("evaluate", "tasks"))
        raise RecipeError(f"{place}: {error.message}", error.hint) from error
