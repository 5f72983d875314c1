"""From a wish to what is typed: the command, the recipe, and the jobs that the pages can start."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from langslice.errors import PlanError
from langslice.mini import heldout_languages, mini_model_path
from langslice.options import codes, typed_words
from langslice.studio.jobs import JobRequest
from langslice.studio.shelf import Offer
from langslice.studio.wish import Wish

TRADEOFF, SCORES, SLICE = "tradeoff", "scores", "slice"
WORK: Final = "work"
"""Folder of a recipe's outputs, in that of the job."""


def slice_command(wish: Wish, offer: Offer) -> str:
    """The command that makes the slice, as it is typed."""
    from langslice.slicing.options import SliceOptions

    return shlex.join(["langslice", "slice", offer.source, *typed_words(SliceOptions, wish.given()), "-o", "OUT"])


def slice_recipe(wish: Wish, offer: Offer) -> str:
    """The recipe of the whole job: the slice, its verification, what it scores next to the model, and the report.

    Raises  what is said of a model that cannot be run
    """
    from langslice.evaluation.loaded_model import model_kind
    from langslice.model.checkpoint import open_checkpoint
    from langslice.recipes.draft import measuring_part
    from langslice.recipes.equivalent import part_recipe, recipe_text
    from langslice.recipes.purposes import PURPOSES, purpose_of

    recipe = part_recipe("slice", offer.source, wish.given())
    checkpoint = open_checkpoint(offer.source)
    purpose = PURPOSES[purpose_of(checkpoint, model_kind(checkpoint.model_folder))]
    part, enough = measuring_part(purpose.tasks, codes(wish.languages))
    return recipe_text({**recipe, **({"evaluate": part} if enough else {}), "report": True})


def score_recipe(wish: Wish, offer: Offer) -> str:
    """The recipe that scores layers and heads: on the package's sentences in the languages, else heads by their weights."""
    from langslice.recipes.equivalent import part_recipe, recipe_text

    texts = _texts(wish)
    heads: Mapping[str, Any] = {"kind": "heads", "method": "gradient" if texts else "l1", "calibration": texts}
    recipe = part_recipe("score", offer.source, heads, name="heads")
    if texts:
        layers = {"kind": "layers", "method": "block-influence", "calibration": texts}
        recipe["score"].update(part_recipe("score", offer.source, layers, name="layers")["score"])
    return recipe_text(recipe)


def job_request(kind: str, wish: Wish, offer: Offer) -> JobRequest:
    """What a job does. Raises PlanError for a kind that there is not, and what making its recipe raises."""
    if kind not in _WORDS:
        raise PlanError(f"no job is called {kind[:40]!r}", f"jobs are {', '.join(_WORDS)}")
    words, recipe = _WORDS[kind](wish, offer)
    return JobRequest(kind, offer.name, words, recipe, wish.query(), offer.state())


def _tradeoff(wish: Wish, offer: Offer) -> tuple[tuple[str, ...], str]:
    from langslice.tradeoffs.options import TradeoffOptions

    if not wish.languages:
        raise PlanError("no language is chosen", "name some, such as ko,en")
    asked = typed_words(TradeoffOptions, {"languages": wish.languages})
    return ("tradeoff", offer.source, *asked, "--overwrite", "-o", "tradeoff.json"), ""


def _scores(wish: Wish, offer: Offer) -> tuple[tuple[str, ...], str]:
    return ("run", "recipe.yaml", "-o", WORK), score_recipe(wish, offer)


def _slice(wish: Wish, offer: Offer) -> tuple[tuple[str, ...], str]:
    return ("run", "recipe.yaml", "-o", WORK), slice_recipe(wish, offer)


def _texts(wish: Wish) -> list[str]:
    folder = Path(mini_model_path()).parent / "heldout"
    return [f"{code}={folder / code}.txt" for code in codes(wish.languages) if code in heldout_languages()]


_Words = Callable[[Wish, Offer], tuple[tuple[str, ...], str]]
_WORDS: Final[Mapping[str, _Words]] = {TRADEOFF: _tradeoff, SCORES: _scores, SLICE: _slice}
