"""What may be in a recipe: its parts and their entries, which are the options of the rooms that do them.

A part is named as the command that does it, and its entries as that command's options. Nothing is listed here twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from langslice.demonstrations.options import DemonstrationOptions
from langslice.errors import RecipeError
from langslice.evaluation.options import EvaluateOptions
from langslice.features.options import FeatureOptions
from langslice.options import Declared, Entry, SourceOptions, declared
from langslice.planning.options import PlanOptions
from langslice.restoration.options import RestoreOptions
from langslice.scoring.options import ScoreOptions
from langslice.slicing.options import CountOptions, SliceVerificationOptions

Entries = Mapping[str, Declared]

INPUTS: Final = ("count", "score", "demonstrations")
"""Parts that make files for others, each by a name of its own: `$NAME` stands for the file there."""
CUTS: Final = ("slice", "sparsify")
STEPS: Final = (*CUTS, "heal")
"""What is done to the model, in the order of the file."""
SWEEPING: Final = ("model", "revision", *INPUTS, *STEPS, "evaluate")
"""Parts of a recipe that is swept over."""
_OPTIONAL: Final = {
    "langslice.healing": "heal",
    "langslice.healing.options": "heal",
    "langslice.reporting": "write reports",
    "langslice.restoration": "restore",
}


@dataclass(frozen=True)
class RecipePart:
    """A part of a recipe.

    help     what it asks for
    entries  name -> option
    named    there may be several, each under a name
    nested   entries that are mappings themselves, with their own entries
    switch   `true` asks for it as it is; `false`, where that is not the same as nothing, for its absence
    """

    help: str
    entries: Entries
    named: bool = False
    nested: Mapping[str, Entries] | None = None
    switch: bool = False


@lru_cache
def parts() -> Mapping[str, RecipePart]:
    """Every part but `model` and `revision`, in the order in which they are done."""
    from langslice.sparsity.request import request_options

    choice = options_of(PlanOptions)
    proven, whole = declared(SliceVerificationOptions), declared(RestoreOptions)["everything"]
    text = proven["text"]
    keep = Entry("Demonstrations to lay out, whose inputs count as important.")
    avoid = Entry("Demonstrations to lay out, whose inputs count against a weight.")
    beside = Entry("A model to measure beside `model`, instead of what the recipe makes.", "MODEL")
    laid_out = demonstration_entries()
    found = {
        "count": RecipePart("Counts of the model's tokens in text, for `counts`: `$NAME`.", options_of(CountOptions), named=True),
        "score": RecipePart(
            "Scores of layers, heads or neurons, for slices to choose by: `$NAME`.", options_of(ScoreOptions), named=True
        ),
        "demonstrations": RecipePart(
            "Text laid out for weight pruning and features, for `keep_demos` and others: `$NAME`.",
            options_of(DemonstrationOptions), named=True,
        ),
        "features": RecipePart(
            "Hidden dimensions that are large on some demonstrations and small on others.", options_of(FeatureOptions)
        ),
        "plan": RecipePart("Choose what to keep, and write it as a plan, without a slice.", choice),
        "slice": RecipePart(
            "Choose what to keep, and slice the model to it.",
            {**_own("plan", str | None, Entry("Do what this plan says, instead of choosing.", "FILE")), **choice},
        ),
        "verify": RecipePart(
            "How the slice is verified, which happens unless this is false, before it appears.",
            {"text": text, "verify_level": proven["verify_level"]}, switch=True,
        ),
        "sparsify": RecipePart(
            "Set weights to zero, in a copy of the model.",
            {
                **{each.called: each for each in request_options().values()},
                **_own("keep", dict, keep), **_own("avoid", dict, avoid),
            },
            nested={"keep": laid_out, "avoid": laid_out},
        ),
        "evaluate": RecipePart(
            "Measure the model, and next to it what is made of it: after the slices, and after healing.",
            {**options_of(EvaluateOptions), **_own("beside", str | None, beside)},
        ),
        "restore": RecipePart(
            "Put the healed rows back into the full vocabulary of the source.", {"everything": whole, "text": text},
            switch=True,
        ),
        "report": RecipePart("Write one HTML page, and the model card.", {}, switch=True),
    }  # fmt: skip
    healing = _healing_entries()
    if healing is not None:
        found["heal"] = RecipePart("Train the slice model on a little text, so that it recovers.", healing)
    order = ("count", "score", "demonstrations", "features", "plan", "slice", "verify", "sparsify", "evaluate", "heal",
             "restore", "report")  # fmt: skip
    return {name: found[name] for name in order if name in found}


def room(name: str) -> ModuleType:
    """A room of langslice that an installation may lack. Raises RecipeError where it does."""
    try:
        return import_module(name)
    except ImportError as error:
        what = _OPTIONAL.get(name, name)
        raise RecipeError(f"this version of langslice does not {what}", f"leave `{name.split('.')[1]}` out") from error


def options_of(kind: type) -> Entries:
    """Options by the names that recipes give them, but for those of the model, which is next to it."""
    return {option.called: option for name, option in declared(kind).items() if name not in declared(SourceOptions)}


def demonstration_entries() -> Entries:
    """Of a demonstration set in `sparsify`: what it shows, in which languages, and how it is laid out."""
    shared = options_of(DemonstrationOptions)
    names = ("languages", "text_field", "shots", "count", "separator", "order", "seed", "condition")
    return {
        **_own("kind", str, Entry("mt (translation), mono (one language) or code.", values=("mt", "mono", "code"))),
        **_own("data", str | None, Entry("Folder of local data sets; that of `evaluate` unless given.")),
        **_own("path", str, Entry("Source code: a folder, or a jsonl file.")),
        **_own("skip", int, Entry("Pairs passed over after each demonstration.", least=0)),
        **{name: shared[name] for name in names},
    }


def _own(name: str, kind: Any, entry: Entry) -> Entries:
    """An entry that only recipes have."""
    return {name: Declared(name, kind, entry, None)}


def _healing_entries() -> Entries | None:
    """Options of healing; None where this installation cannot heal."""
    try:
        room("langslice.healing")
        return options_of(room("langslice.healing.options").HealOptions)
    except RecipeError:
        return None
