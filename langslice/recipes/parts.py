"""What may stand in a recipe: its parts and their entries, taken from where commands and library have them.

A part is named as the command that does it, and its entries as that command's options. Nothing is listed here twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType, NoneType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from langslice.errors import RecipeError
from langslice.options import Choice, Entry, Source, entries

INPUTS: Final = ("count", "score", "demonstrations")
"""Parts that make files for others, each by a name of its own: `$NAME` stands for the file there."""
CUTS: Final = ("slice", "sparsify")
STEPS: Final = (*CUTS, "heal")
"""What is done to the model, in the order of the file."""
SWEEPING: Final = ("model", "revision", *INPUTS, *STEPS, "evaluate")
"""Parts of a recipe that is swept over."""
# Of a demonstration set in `sparsify`: what it shows, in which languages, and how it is laid out.
DEMONSTRATION_ENTRIES: Final = {
    "kind": (str, Entry("mt (translation), mono (one language) or code.", values=("mt", "mono", "code"))),
    "languages": (str | Sequence[str], Entry("Source and target, or the one of mono: fr,en.")),
    "data": (str | None, Entry("Folder of local data sets; that of `evaluate` unless given.")),
    "path": (str, Entry("Source code: a folder, or a jsonl file.")),
    "text_field": (str, Entry("Field of jsonl records that holds the code.")),
    "shots": (int, Entry("Sentences or pairs in each.", least=1)),
    "count": (int, Entry("Demonstrations.", least=1)),
    "separator": (str, Entry("Behind every part; {eos} is the model's own end.")),
    "order": (str | None, Entry("file or shuffled.", values=("file", "shuffled"))),
    "skip": (int, Entry("Pairs passed over after each demonstration.", least=0)),
    "seed": (int, Entry("Of the shuffle.")),
    "condition": (str, Entry("What the demonstrations are called.")),
}
# Options that say where to write and how to show, or that hold a secret.
_OF_A_COMMAND = frozenset({
    "model", "out", "results", "overwrite", "quiet", "json", "picture", "revision", "token", "cache_dir", "show_recipe",
})  # fmt: skip
_OPTIONAL: Final = {
    "langslice.healing": "heal",
    "langslice.healing.options": "heal",
    "langslice.reporting": "write reports",
    "langslice.restoration": "restore",
}

Entries = Mapping[str, tuple[Any, Entry]]


@dataclass(frozen=True)
class Part:
    """A part of a recipe.

    help     what it asks for
    entries  name -> type and what is known of it
    named    there may be several, each under a name
    required entries that must stand there
    nested   entries that are mappings themselves, with their own entries
    switch   `true` asks for it as it is; `false`, where that is not the same as nothing, for its absence
    """

    help: str
    entries: Entries
    named: bool = False
    required: tuple[str, ...] = ()
    nested: Mapping[str, Entries] | None = None
    switch: bool = False


@lru_cache
def parts() -> Mapping[str, Part]:
    """Every part but `model` and `revision`, in the order in which they are done."""
    from langslice.cli.commands.count import count
    from langslice.cli.commands.demonstrations import demonstrations
    from langslice.cli.commands.features import features
    from langslice.cli.commands.score import score

    choice = {name: entry for name, entry in entries(Choice).items() if name not in Source.__annotations__}
    given_plan = {"plan": (str | None, Entry("Do what this plan says, instead of choosing.", "FILE"))}
    beside = {
        "beside": (str | None, Entry("A model to measure beside `model`, instead of what the recipe makes.", "MODEL"))
    }
    text = {"text": (str | Sequence[str], Entry("Held-out text to prove the slice on.", "PATH"))}
    found = {
        "count": Part("Counts of the model's tokens in text, for `counts`: `$NAME`.", options_of(count), named=True),
        "score": Part(
            "Scores of layers, heads or neurons, for cuts to choose by: `$NAME`.", options_of(score),
            named=True, required=("kind", "method"),
        ),
        "demonstrations": Part(
            "Text laid out for weight pruning and features, for `keep_demos` and others: `$NAME`.",
            options_of(demonstrations), named=True,
        ),
        "features": Part("Hidden dimensions that are large on some demonstrations and small on others.", options_of(features)),
        "plan": Part("Choose what to keep, and write it as a plan, without a slice.", choice),
        "slice": Part("Choose what to keep, and cut the model to it.", {**given_plan, **choice}),
        "verify": Part(
            "How the slice is proven, which happens unless this is false, before it appears.", text, switch=True
        ),
        "sparsify": Part(
            "Set weights to zero, in a copy of the model.", _sparsity_entries(),
            nested={"keep": DEMONSTRATION_ENTRIES, "avoid": DEMONSTRATION_ENTRIES},
        ),
        "evaluate": Part(
            "Measure the model, and beside it what is made of it: after the cuts, and after healing.",
            {**_evaluation_entries(), **beside},
        ),
        "restore": Part("Put the healed rows back into the full vocabulary of the source.", _restoring_entries(), switch=True),
        "report": Part("Write one HTML page, and the model card.", {}, switch=True),
    }  # fmt: skip
    healing = _healing_entries()
    if healing is not None:
        found["heal"] = Part("Train the cut model on a little text, so that it recovers.", healing)
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


def options_of(command: Callable[..., Any]) -> dict[str, tuple[Any, Entry]]:
    """A command's options and arguments as entries, but for those that say where to write and how to show.

    Where an option may be repeated, one value may stand alone.
    """
    from typer.models import ParameterInfo

    hints = inspect.get_annotations(command, eval_str=True)
    found = {}
    for name in inspect.signature(command).parameters:
        hint: Any = hints.get(name)
        if name in _OF_A_COMMAND or get_origin(hint) is not Annotated:
            continue
        info = hint.__metadata__[0]
        if isinstance(info, ParameterInfo):
            kind = hint.__origin__ | str if takes_list(hint.__origin__) else hint.__origin__
            found[name] = (kind, Entry(info.help or "", info.metavar, least=info.min, most=info.max))
    return found


def takes_list(kind: Any) -> bool:
    """Whether several values are understood."""
    return any(json_type(each) == "array" for each in alternatives(kind))


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union; a type that is none, alone."""
    return (kind,) if json_type(kind) == "array" else get_args(kind) or (kind,)


def json_type(kind: Any) -> str:
    """What a type is called in JSON; text, where there is nothing better."""
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str:
        return "array"
    return {bool: "boolean", int: "integer", float: "number", NoneType: "null"}.get(origin, "string")


def _sparsity_entries() -> Entries:
    from langslice.options import COMPUTE, SCORES
    from langslice.sparsity.request import SparsityRequest

    values = {"score": SCORES, "compute": COMPUTE}
    found = {
        name: (kind, Entry(entry.help, values=values.get(name, ())))
        for name, (kind, entry) in _fields_of(SparsityRequest, {"Demonstration": str}).items()
    }
    return {
        **found,
        "keep": (dict, Entry("Demonstrations to lay out, whose inputs count as important.")),
        "avoid": (dict, Entry("Demonstrations to lay out, whose inputs count against a weight.")),
    }


def _evaluation_entries() -> Entries:
    from langslice.cli.commands.evaluate import evaluate as command
    from langslice.evaluation.main import evaluate
    from langslice.evaluation.options import Settings

    helps = {name: entry.help for name, (_, entry) in options_of(command).items()}
    helps = {**_documented(Settings), **helps}
    hints = get_type_hints(evaluate)
    names = [name for name in inspect.signature(evaluate).parameters if name not in ("model", "out", "report")]
    return {name: (hints[name], Entry(helps.get(name, ""))) for name in names}


def _healing_entries() -> Entries | None:
    """Fields of HealSettings; None where this installation cannot heal."""
    try:
        settings = room("langslice.healing").HealSettings
    except RecipeError:
        return None
    return _fields_of(settings, {})


def _restoring_entries() -> Entries:
    """Options of the command that say what comes back, and on what text it is proven; none where there is no such command."""
    try:
        command = import_module("langslice.cli.commands.restore").restore
    except ImportError:
        return {}
    return {name: found for name, found in options_of(command).items() if name in ("everything", "text")}


def _fields_of(kind: type, names: Mapping[str, Any]) -> dict[str, tuple[Any, Entry]]:
    """Fields of a dataclass, with what its docstring says of each; where it takes a list, one value may stand alone."""
    if not is_dataclass(kind):
        raise RecipeError(f"{kind.__name__} is no dataclass", None)
    hints, helps = get_type_hints(kind, localns=dict(names)), _documented(kind)
    found = {}
    for field in fields(kind):
        hint = hints[field.name]
        found[field.name] = (hint | str if takes_list(hint) else hint, Entry(helps.get(field.name, "")))
    return found


def _documented(kind: type) -> dict[str, str]:
    """Name -> what a docstring's table says of it; lines that are further in go on with the one before."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
        start = re.match(r"([a-z_]+(?:, [a-z_]+)*)\s+(\S.*)", line)
        if start:
            names = start[1].split(", ")
            found.update(dict.fromkeys(names, start[2]))
        elif line.startswith(" ") and names:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        else:
            names = []
    return {name: text[:1].upper() + text[1:].rstrip(".") + "." for name, text in found.items()}
