"""From a choice to what is kept of a model's layers, heads, neurons and experts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.options import Choice, asks, codes, listed
from langslice.planning.chosen_scores import method_for, scores_for
from langslice.planning.expert_choice import EXPERT_CUTS, experts_to_go
from langslice.planning.hidden_choice import check_hidden_choice, hidden_to_keep
from langslice.planning.sentence_modules import refuse_what_they_fix
from langslice.progress import Report, silent
from langslice.structure.by_score import refuse_by_score
from langslice.structure.checked import gone
from langslice.structure.dropped_parts import (
    Dropped,
    experts_dropped,
    heads_dropped,
    kept_layers,
    merge,
    neurons_dropped,
)
from langslice.structure.kept import Kept
from langslice.structure.output_form import express

# Entries of a choice that remove something, and those that only say how.
CUTS = (
    "layers", "drop_layers", "first_layers", "every_layer", "drop_layers_by", "drop_heads", "heads_sparsity",
    "drop_neurons", "neurons_sparsity", "language_neurons", "prune_rows", "hidden_size", *EXPERT_CUTS,
)  # fmt: skip
_LAYER_CUTS = ("layers", "drop_layers", "first_layers", "every_layer", "drop_layers_by")
_PARTS = {
    "layers": _LAYER_CUTS,
    "heads": ("drop_heads", "heads_sparsity", "language_neurons"),
    "neurons": ("drop_neurons", "neurons_sparsity", "language_neurons"),
    "experts": EXPERT_CUTS,
}
MANNERS = ("output_style", "replicate_kv", "even", "heads_by", "neurons_by", "experts_by", "hidden_by", "score_texts")


def choose_structure(checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice, report: Report = silent) -> Kept:
    """Read every structural entry of a choice and find the form in which the slice can be written.

    Raises   PlanError for what does not exist or cannot be expressed, ScoreError for scores that do not fit
    """
    _refuse_beforehand(checkpoint, anatomy, choice)
    check_hidden_choice(checkpoint, anatomy, choice)
    layers = _layers(checkpoint, anatomy, choice, report)
    heads = heads_dropped(anatomy, listed(choice.get("drop_heads")))
    neurons = neurons_dropped(anatomy, listed(choice.get("drop_neurons")))
    _refuse_gone(layers, "--drop-heads", heads)
    _refuse_gone(layers, "--drop-neurons", neurons)
    experts = experts_to_go(checkpoint, anatomy, choice, report)
    _refuse_gone(layers, "--drop-experts", experts_dropped(anatomy, listed(choice.get("drop_experts"))))
    by_score = _heads_and_neurons(checkpoint, anatomy, choice, report)
    hidden, rotation = hidden_to_keep(checkpoint, anatomy, choice, report)
    kept = express(
        anatomy,
        layers=layers,
        heads=merge(heads, by_score[0]),
        neurons=merge(neurons, by_score[1]),
        experts=experts,
        hidden=hidden,
        style=choice.get("output_style") or "auto",
        replicate=bool(choice.get("replicate_kv")),
    )
    zeroed = _pruned_rows(checkpoint, anatomy, kept, listed(choice.get("prune_rows")))
    return replace(kept, zeroed=zeroed, rotation=rotation)


def _refuse_beforehand(checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice) -> None:
    """Refuse what cannot be written whatever the scores say, before any is computed."""
    refuse_what_they_fix(checkpoint, anatomy, layers=asks(choice, _LAYER_CUTS))
    _refuse_underived(anatomy, choice)
    by_language = bool(choice.get("language_neurons"))
    refuse_by_score(
        anatomy,
        heads=bool(choice.get("heads_sparsity")) or by_language,
        neurons=bool(choice.get("neurons_sparsity")) or by_language,
        even=bool(choice.get("even")) and not by_language,
        style=choice.get("output_style") or "auto",
        narrower=choice.get("hidden_size") is not None,
    )


def _refuse_underived(anatomy: Anatomy, choice: Choice) -> None:
    """Refuse what a derived row could not find, with the reason."""
    for kind, entries in _PARTS.items():
        why = anatomy.body.refused.get(kind)
        if why and asks(choice, entries):
            raise PlanError(
                f"the {kind} of a `{anatomy.body.model_types[0]}` model could not be read off its class: {why}",
                hint="to say them yourself, see docs/adding-a-family.md",
            )


def _layers(checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice, report: Report) -> dict[str, tuple[int, ...]]:
    """Layers that stay, for each stack of which any go."""
    drop = list(listed(choice.get("drop_layers")))
    for text in listed(choice.get("drop_layers_by")):
        where, _, number = text.rpartition(":")
        stack, dot, method = where.partition(".")
        if (
            stack not in anatomy.layers or method == "parquet"
        ):  # "layers.parquet" is a file, "encoder.layers.parquet" a stack's
            stack, dot, method = "", "", where
        if not method or not number.isdigit() or int(number) < 1:
            raise PlanError(
                f"--drop-layers-by {text}: expected METHOD:NUMBER", hint="write block-influence:4, or layers.parquet:4"
            )
        if not dot and len(anatomy.layers) > 1:
            raise PlanError(
                f"--drop-layers-by {text}: which stack? this model has {', '.join(anatomy.layers)}",
                hint=f"write {next(iter(anatomy.layers))}.{text}",
            )
        from langslice.scoring.selection import layers_to_drop

        stack = stack or next(iter(anatomy.layers))
        scores = scores_for(checkpoint, "layers", method, choice, report, number=int(number))
        gone = layers_to_drop(scores, anatomy, int(number), stack)
        drop.append(f"{stack}." + ",".join(map(str, gone)))
    return kept_layers(
        anatomy,
        keep=listed(choice.get("layers")),
        drop=drop,
        first=listed(choice.get("first_layers")),
        every=listed(choice.get("every_layer")),
    )


def _refuse_gone(layers: Mapping[str, tuple[int, ...]], flag: str, dropped: Dropped) -> None:
    """Refuse a part of a layer that goes as a whole: one of the two was not meant."""
    for place, by_layer in dropped.items():
        gone = sorted(layer for layer in by_layer if layer not in layers.get(place.split(".")[0], (layer,)))
        if gone:
            raise PlanError(
                f"{flag} names layer {gone[0]} of {place}, which is dropped as a whole",
                hint="leave that layer out of one of the two",
            )


def _heads_and_neurons(
    checkpoint: Checkpoint, anatomy: Anatomy, choice: Choice, report: Report
) -> tuple[Dropped, Dropped]:
    """What scores choose to drop."""
    from langslice.scoring import selection as choosing

    even = bool(choice.get("even"))
    grouped = not choice.get("replicate_kv") and choice.get("output_style") != "masked"
    heads: list[Mapping[str, Mapping[int, Iterable[int]]]] = []
    neurons: list[Mapping[str, Mapping[int, Iterable[int]]]] = []
    share = choice.get("heads_sparsity")
    if share is not None:
        scores = scores_for(checkpoint, "heads", method_for("heads", choice), choice, report)
        heads.append(choosing.heads_to_drop(scores, anatomy, share, even, whole_groups=grouped))
    share = choice.get("neurons_sparsity")
    if share is not None:
        scores = scores_for(checkpoint, "neurons", method_for("neurons", choice), choice, report)
        neurons.append(choosing.neurons_to_drop(scores, anatomy, share, even))
    if choice.get("language_neurons"):
        keep = codes(choice.get("languages"))
        if not keep:
            raise PlanError("--language-neurons keeps what serves --languages, but none are given", hint="-l ko,en")
        lape = scores_for(checkpoint, "neurons", "lape", choice, report)
        lahis = scores_for(checkpoint, "heads", "lahis", choice, report)
        neurons.append(choosing.language_neurons_to_drop(lape, anatomy, keep))
        foreign = choosing.language_heads_to_drop(lahis, anatomy, keep)
        heads.append(_whole_groups(anatomy, foreign) if grouped else foreign)
    return merge(*heads), merge(*neurons)


def _whole_groups(anatomy: Anatomy, dropped: Mapping[str, Mapping[int, Iterable[int]]]) -> Dropped:
    """Of heads to drop, those that go with all others that share their key and value."""
    whole: Dropped = {}
    for place, by_layer in dropped.items():
        for layer, numbers in by_layer.items():
            group, gone = anatomy.heads[place][layer].group, set(numbers)
            stay = {head for head in gone if all(head // group * group + at in gone for at in range(group))}
            if stay:
                whole.setdefault(place, {})[layer] = stay
    return whole


def language_control(
    checkpoint: Checkpoint, anatomy: Anatomy, kept: Kept, choice: Choice, report: Report = silent
) -> tuple[str, ...]:
    """What a slice of language-specific parts costs each language, and the same slice at random; nothing for other slices."""
    asked = {"neuron or head": "language_neurons", "expert": "language_experts"}
    kinds = [kind for kind, name in asked.items() if choice.get(name)]
    if not kinds:
        return ()
    from langslice.scoring.cost import pruning_costs

    counts = {place: {layer: one.query for layer, one in rows.items()} for place, rows in anatomy.heads.items()}
    heads, neurons = gone(kept.heads, counts), gone(kept.neurons, anatomy.neurons)
    experts = gone(kept.experts, anatomy.experts)
    number = sum(len(row) for part in (heads, neurons, experts) for rows in part.values() for row in rows.values())
    if not number:
        return (f"no {' or '.join(kinds)} serves only languages outside --languages, so none of them was dropped",)
    costs = pruning_costs(
        checkpoint, listed(choice.get("score_texts")), heads=heads, neurons=neurons, experts=experts, report=report
    )
    words = ", ".join(word for word, part in (("heads", heads), ("neurons", neurons), ("experts", experts)) if part)
    return tuple(
        f"{cost.language or 'text'}: {cost.whole:.3f} nats per token, {cost.chosen:+.4f} by this slice of {number} {words}, "
        f"{cost.control:+.4f} ± {cost.spread:.4f} by as many at random"
        for cost in costs
    )


def _pruned_rows(
    checkpoint: Checkpoint, anatomy: Anatomy, kept: Kept, texts: Sequence[str]
) -> dict[str, dict[int, tuple[int, ...]]]:
    """Rows or columns of named linears that become zero: the lowest by norm, as `torch.nn.utils.prune.ln_structured` does.

    texts    PATTERN=SHARE[:l1|l2][:rows|columns]; a pattern is a module's name with * and ?
    Returns  tensor -> dimension -> old indices
    """
    zeroed: dict[str, dict[int, tuple[int, ...]]] = {}
    for text in texts:
        pattern, share, order, dim = _parse_rows(text)
        names = [
            name
            for name, tensor in checkpoint.tensors.items()
            if name.endswith(".weight") and len(tensor.shape) == 2 and _matches(name, pattern)
        ]
        if not names:
            raise PlanError(
                f"--prune-rows {text}: no linear layer is called like `{pattern}`",
                hint="names are those of the checkpoint without .weight; `langslice inspect MODEL --json` lists them",
            )
        for name in names:
            place = anatomy.places.get(name)
            if place is None:
                raise PlanError(f"--prune-rows {text}: {name} is in no layer", hint="embeddings and heads stay whole")
            if kept.keeps_layer(place.stack, place.layer):
                zeroed.setdefault(name, {})[dim] = _lowest(checkpoint, name, share, order, dim)
    return zeroed


def removal_offer(anatomy: Anatomy, choice: Choice) -> tuple[str, ...]:
    """A sentence for rows that stand for something which could be removed instead of zeroed."""
    notes = []
    for text in listed(choice.get("prune_rows")):
        pattern, share, order, dim = _parse_rows(text)
        found = {
            (anatomy.axes[name] or ("",) * 2)[dim]
            for name in anatomy.places
            if name.endswith(".weight") and len(anatomy.axes[name] or ()) == 2 and _matches(name, pattern)
        }
        if found & {"neurons", "gate_up"}:
            notes.append(
                f"--prune-rows {text} zeroes parts of neurons and keeps their bytes; "
                f"--neurons-sparsity {share:g} --neurons-by l{order} removes neurons whole"
            )
    return tuple(notes)


def _matches(name: str, pattern: str) -> bool:
    module = name.removesuffix(".weight")
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def _parse_rows(text: str) -> tuple[str, float, int, int]:
    pattern, equals, rest = text.rpartition("=")
    share, *manner = rest.split(":")
    known = {"l1", "l2", "rows", "columns"}
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not equals or not pattern or not 0 < value < 1 or set(manner) - known:
        raise PlanError(
            f"--prune-rows {text}: expected PATTERN=SHARE[:l1|l2][:rows|columns], the share between 0 and 1",
            hint='--prune-rows "encoder.layer.*.attention.self.query=0.2:l1"',
        )
    return pattern, value, 1 if "l1" in manner else 2, 1 if "columns" in manner else 0


def _lowest(checkpoint: Checkpoint, name: str, share: float, order: int, dim: int) -> tuple[int, ...]:
    from langslice.scoring.magnitude import power_sums

    sums = power_sums(checkpoint.tensors[name], dim, order)
    number = round(share * len(sums))
    return tuple(sorted(np.argsort(sums, kind="stable")[:number].tolist()))
