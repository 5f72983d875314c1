"""Recipes: the whole job in one readable file, done step by step; what is done already is not done again.

Reading order: parts.py (what may be in a recipe, from the commands' options), schema.py (the same for editors),
document.py (YAML with the places of its entries), references.py (`$NAME`), validation.py (checked), content.py (what a result
depends on), execution.py (each part done), steps.py (which steps a recipe has), main.py (the flow, with what is kept from
before), equivalent.py (from a command line to its recipe), purposes.py (what models are sliced for, and
the catalogue of those that people use), draft.py (a first recipe after a look at a model), ready.py (recipes for the
catalogue).

A sweep is a recipe with lists: langslice.sweeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.recipes.document import Recipe
    from langslice.recipes.main import Done, RunResult, preview
    from langslice.recipes.schema import recipe_schema
    from langslice.recipes.validation import load_recipe

__all__ = ["Done", "Recipe", "RunResult", "load_recipe", "preview", "recipe_schema"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.recipes.document": ("Recipe",),
        "langslice.recipes.main": (
            "Done",
            "RunResult",
            "preview",
        ),
        "langslice.recipes.schema": ("recipe_schema",),
        "langslice.recipes.validation": ("load_recipe",),
    },
)
