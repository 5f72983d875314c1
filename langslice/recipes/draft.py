"""A first recipe, written after a short look at a model: what each slice would save, which its family allows, how to measure.

It runs as it is written; what is optional is there as a comment, ready to be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import HealError, LanguageError, PlanError, RecipeError
from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.options import codes, taking
from langslice.planning.source import Source
from langslice.progress import Report, silent
from langslice.recipes.options import InitOptions
from langslice.recipes.purposes import PURPOSES, checked_purpose, healing, known_model, proposed
from langslice.slicing.inspect import Inspection, Unit

_WIDTH = 118
_LIMIT = 50
_EXPERTS = 0.25  # of each layer's, to drop


@dataclass(frozen=True)
class Look:
    """What a draft is written from.

    model      as it was named
    languages  as they were named, and their tags
    purpose    of PURPOSES
    objective  what a training on a little text teaches; or why there is none
    cuts       "layers", "heads", "neurons", in a mixture "experts" -> how such a slice is written, or why it cannot be
    share      of the heads, to drop: a quarter, or the least that can go from every layer alike
    """

    model: str
    languages: tuple[str, ...]
    purpose: str
    objective: str
    found: Inspection
    cuts: dict[str, str]
    share: float


@taking(InitOptions, "languages")
def draft(model: str | Path | None, *, options: InitOptions, report: Report = silent) -> str:
    """Write a recipe with comments.

    model      a folder, a model on the hub, or mini; None with a purpose: the model that is proposed for it
    options    see InitOptions
    Returns    YAML; the revision is part of it, a token is not
    Raises     CheckpointError, TokenizerError; LanguageError for a language without a word list; RecipeError for a model
               that is not for the purpose
    """
    if model is None:
        if options.purpose is None:
            raise RecipeError("no model was given", f"name one, or what it is for: --for {', '.join(PURPOSES)}")
        model = proposed(options.purpose)
    checkpoint = open_checkpoint(model, **options.source())
    look = _look(str(model), codes(options.languages), options.purpose, checkpoint, report)
    named = {"model": str(model), **({"revision": options.revision} if options.revision else {})}
    return (
        "\n\n".join(
            [
                "# langslice run recipe.yaml -o WORK\n"
                "# For completion in an editor: langslice run --schema > recipe.schema.json\n"
                "# yaml-language-server: $schema=recipe.schema.json",
                _about(look) + on(named),
                "slice:\n" + "\n\n".join(_indented(text) for text in _cuts(look)),
                *_after(look),
            ]
        )
        + "\n"
    )


def _look(model: str, languages: Sequence[str], purpose: str | None, checkpoint: Checkpoint, report: Report) -> Look:
    from langslice.evaluation.loaded_model import model_kind
    from langslice.slicing.inspect import inspect_model
    from langslice.vocabulary.languages import parse_languages

    tags = tuple(language.tag for language in parse_languages(languages))
    if not tags:
        raise LanguageError("no language was given", "name some with --languages: ko,en")
    kind = model_kind(checkpoint.model_folder)
    purpose = checked_purpose(purpose, checkpoint, kind)
    source = Source(checkpoint)
    found = inspect_model(source, sets=[tags], report=report)
    if not found.savings:
        raise LanguageError(found.notes[0], "name text in it in a recipe of your own: slice: {corpus: FILE}")
    report("what the family allows", 0, 0)
    cuts, share = _allowed(source)
    return Look(model, tags, purpose, _objective(checkpoint, kind), found, cuts, share)


def _objective(checkpoint: Checkpoint, kind: str) -> str:
    """The objective that trains a model on a little text; or why none does."""
    from transformers import AutoConfig

    from langslice.healing.objectives import choose_objective

    if (checkpoint.folder / "modules.json").is_file():
        return "contrastive"
    config = AutoConfig.from_pretrained(checkpoint.model_folder)
    try:
        return choose_objective("auto", kind, config, config.architectures or ())
    except HealError as error:
        return f"cannot be trained: {error.message}"


def _allowed(source: Source) -> tuple[dict[str, str], float]:
    """For a slice of each kind that is the same in all layers: its form, or the reason against it; and the share of heads."""
    try:
        anatomy = source.anatomy
    except PlanError as error:
        return dict.fromkeys(("layers", "heads", "neurons"), f"cannot be sliced: {error.message}"), 0.25
    stack = next(iter(anatomy.layers))
    layers = {stack: tuple(range(anatomy.layers[stack] - 1))}
    # Heads that share a key-value head go together, unless all do.
    firsts = {place: rows[min(rows)] for place, rows in anatomy.heads.items()}
    least = {place: 1 if first.key_value == 1 else first.group for place, first in firsts.items()}
    heads = {place: {layer: range(least[place]) for layer in rows} for place, rows in anatomy.heads.items()}
    neurons = {place: {layer: range(8) for layer in widths} for place, widths in anatomy.neurons.items()}
    cuts = {
        "layers": _form(anatomy, layers=layers),
        "heads": _form(anatomy, heads=heads),
        "neurons": _form(anatomy, neurons=neurons),
    }
    if any(anatomy.experts.values()):
        cuts["experts"] = _form_of_experts(anatomy)
    share = max([0.25, *(least[place] / first.query for place, first in firsts.items())])
    return cuts, ceil(100 * share) / 100


def _form_of_experts(anatomy: Anatomy) -> str:
    from langslice.scoring.expert_selection import lowest_share

    alike = {
        stack: {layer: np.zeros(count) for layer, count in rows.items()} for stack, rows in anatomy.experts.items()
    }
    try:
        return _form(anatomy, experts=lowest_share(alike, anatomy, _EXPERTS))
    except PlanError as error:
        return f"cannot be sliced: {error.message}"


def _form(anatomy: Anatomy, **cut: Any) -> str:
    from langslice.structure.clients import client_note
    from langslice.structure.output_form import express

    try:
        kept = express(anatomy, **{"layers": {}, "heads": {}, "neurons": {}, **cut})
    except PlanError as error:
        return f"cannot be sliced: {error.message}"
    return client_note(anatomy, kept)


def _about(look: Look) -> str:
    from langslice.formatting import bytes_text, count_text

    found = look.found
    what = ", ".join(found.architectures) or found.model_type
    shares = ", ".join(f"{part.name} {part.parameters / max(found.parameters, 1):.0%}" for part in found.parts[:5])
    return _comment(f"{what}, {count_text(found.parameters)} parameters, {bytes_text(found.size_bytes)}: {shares}.")


def _cuts(look: Look) -> list[str]:
    """Blocks of the part `slice`."""
    known = known_model(look.model)
    found, saving = look.found, look.found.savings[0]
    saved = 1 - saving.size_bytes / max(found.size_bytes, 1)
    texts = ", ".join(f"{language}={language}.txt" for language in look.languages)
    blocks = [
        _comment(
            f"Vocabulary: the word lists of these languages keep {saving.rows:,} of {found.rows:,} tokens and save "
            f"{saved:.0%} of the bytes."
        )
        + on({"languages": ",".join(look.languages), **(known.slice if known else {})}),
        _comment("Text of your own decides better than word lists; tokens that are rare in it may go.")
        + turned_off({"corpus": [f"{language}.txt" for language in look.languages], "coverage": 0.9999}),
    ]
    stack = next((unit.place for unit in found.units if unit.name == "layer"), "layers")
    layers = (
        f"{stack}.block-influence:1"
        if len({u.place for u in found.units if u.name == "layer"}) > 1
        else "block-influence:1"
    )
    shares = {"heads": look.share, "neurons": 0.2, "experts": _EXPERTS}
    for name, words, entries in (
        ("layers", ("layer",), {"drop_layers_by": layers}),
        ("heads", ("head", "group"), {"heads_sparsity": shares["heads"], "uniform": True}),
        ("neurons", ("neuron",), {"neurons_sparsity": shares["neurons"], "uniform": True}),
        ("experts", ("expert",), {"experts_sparsity": shares["experts"]}),
    ):
        if name not in look.cuts:  # most models have no experts
            continue
        units = [unit for unit in found.units if unit.name.split()[0] in words]
        worth = [_worth(look, unit, shares.get(name), len(units) > 1) for unit in units]
        refused = look.cuts[name].startswith("cannot be sliced")
        text = _comment(f"{name.capitalize()}: {'; '.join(worth) or 'none'}. A slice with fewer {look.cuts[name]}."
                        if not refused else f"{name.capitalize()} {look.cuts[name]}.")  # fmt: skip
        blocks.append((text + ("" if refused else turned_off(entries))).rstrip())
    needing = "Layers and experts" if "experts" in look.cuts else "Layers"
    blocks.append(
        _comment(f"Text to score them on. {needing} need it; heads and neurons go by their norm without it.")
        + turned_off({"calibration": texts.split(", ")})
    )
    blocks.append(
        _comment("Weights set to zero; the files keep their size. By demonstrations: see the guide on pruning weights.")
        + turned_off({"sparsity": 0.3, "weights_by": "magnitude"})
    )
    return blocks


def _worth(look: Look, unit: Unit, share: float | None, several: bool) -> str:
    """What the slice that is offered would save of a kind: one layer, or a share of its heads or neurons."""
    parameters = unit.parameters * (1 if share is None else share * unit.count)
    noun, _, rest = unit.name.partition(" ")
    many = f"{unit.count:,} {noun}s{' ' if rest else ''}{rest}{f' of {unit.place}' if several else ''}"
    part = "one of" if share is None else f"{share:.0%} of the"
    return f"{part} {many} is {parameters / max(look.found.parameters, 1):.1%} of the parameters"


def _after(look: Look) -> list[str]:
    """Parts after the slice."""
    if look.objective.startswith("cannot be trained"):
        trained = [_comment(f"A training on a little text is not offered: it {look.objective}.").rstrip()]
    else:
        trained = [
            _comment("Train what is left on a little text, taught by the model as it was; then it is measured again.")
            + turned_off({"heal": healing(look.objective, look.languages)}),
            _comment("Put the healed rows back into the full vocabulary.") + turned_off({"restore": True}),
        ]
    return [
        _measuring(look),
        *trained,
        _comment("One page with everything, and the model card.") + turned_off({"report": True}),
        _comment(f"Then: {PURPOSES[look.purpose].after}").rstrip(),
    ]


def measuring_part(tasks: str, languages: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The part `evaluate` for tasks of a purpose, and whether the package has sentences enough for it."""
    from langslice.mini import heldout_languages

    known = [language for language in languages if language in heldout_languages()]
    # Retrieval and translation are between English and another language.
    enough = bool(tasks and known) and (tasks == "perplexity" or ("en" in known and len(known) > 1))
    return {"tasks": tasks, "languages": ",".join(known if enough else languages), "limit": _LIMIT}, enough


def _measuring(look: Look) -> str:
    """The part `evaluate`, on the sentences that come with the package; a comment where they are in other languages."""
    purpose = PURPOSES[look.purpose]
    if not purpose.tasks:
        return _comment(f"`evaluate` has no task for {purpose.help}: verification compares the outputs.").rstrip()
    part, enough = measuring_part(purpose.tasks, look.languages)
    if enough:
        return _comment("Measured on sentences that come with langslice; `data: FOLDER` names your own.") + on(
            {"evaluate": part}
        )
    return _comment(
        "The sentences that come with langslice are in other languages: name a folder of your own."
    ) + turned_off({"evaluate": {**part, "data": "data"}})


def on(entries: Mapping[str, Any]) -> str:
    """A mapping as YAML, the lists in it on one line."""
    import yaml

    lines = []
    for name, value in entries.items():
        if isinstance(value, dict):
            lines += [f"{name}:", _indented(on(value))]
        else:
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
            lines.append(f"{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines)


def turned_off(entries: Mapping[str, Any]) -> str:
    """The same, as comments that are ready to be used."""
    return "\n".join(f"# {line}" for line in on(entries).splitlines())


def _comment(text: str) -> str:
    import textwrap

    lines = textwrap.wrap(text, _WIDTH - 6, break_long_words=False, break_on_hyphens=False)
    return "".join(f"## {line}\n" for line in lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
