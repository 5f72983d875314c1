"""Which methods there are, and the one function that computes scores by any of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from langslice.errors import LangsliceError, ScoreError
from langslice.model.anatomy import Anatomy, read_anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.progress import Report, silent
from langslice.scoring.options import ScoreSettings
from langslice.scoring.table import KINDS, OVERALL, Scores, Values, averaged, model_fingerprint

METHODS: Mapping[str, Mapping[str, str]] = {
    "layers": {
        "block-influence": "1 - cosine of a layer's input and output (forward only)",
        "angular": "angle that a run of layers turns its input by (forward only)",
        "perplexity": "measured loss when layers are removed one after another (forward only, many passes)",
    },
    "heads": {
        "l1": "sum of the absolute weights of a head (no text)",
        "l2": "Euclidean norm of the weights of a head (no text)",
        "gradient": "output times gradient of the loss, by token",
        "gates": "probability that a trained gate on the head stays open",
        "lahis": "gradient of a unit mask on the head, by language",
    },
    "neurons": {
        "l1": "sum of the absolute weights of a neuron's rows (no text)",
        "l2": "Euclidean norm of a neuron's rows (no text)",
        "activation": "mean absolute output (forward only)",
        "taylor": "output times gradient of the loss, by token",
        "lape": "share of tokens that activate the neuron, by language (forward only)",
    },
    "experts": {"routed": "share of tokens that the router sends to the expert, by language (forward only)"},
}
DEFAULTS: Mapping[str, tuple[str, str]] = {
    "layers": ("block-influence", "block-influence"),
    "heads": ("gradient", "l1"),
    "neurons": ("taylor", "l2"),
    "experts": ("routed", "routed"),
}
"""Kind -> method with text, and without, by what it says of trained models (benchmarks/results/real/scores.md)."""
FROM_WEIGHTS = frozenset({"l1", "l2"})
FROM_GRADIENTS = frozenset({"gradient", "gates", "lahis", "taylor"})
BY_LANGUAGE = {"lahis": 1, "lape": 2}
"""Methods that need text with a language, and of how many languages."""
_PREDICTING = frozenset({"perplexity", "gradient", "gates", "lahis", "taylor"})
_GATE_TOKENS = 256

Texts = Sequence[str] | Mapping[str, Sequence[str]]


def compute(
    checkpoint: Checkpoint,
    kind: str,
    method: str,
    texts: Texts = (),
    *,
    settings: ScoreSettings | None = None,
    text_field: str = "text",
    report: Report = silent,
) -> Scores:
    """Score the layers, heads, neurons or experts of a model.

    kind     "layers", "heads", "neurons" or "experts"
    method   a name of METHODS
    texts    files ("FILE", or "ko=FILE" for text of one language), or language -> lines; l1 and l2 read none
    Raises   ScoreError for an unknown method or one that does not suit the model, PlanError for a family whose layers are
             not known, CorpusError for text that is missing or gives no tokens
    """
    check_method(kind, method)
    settings = settings or ScoreSettings()
    anatomy = read_anatomy(checkpoint)
    _check_anatomy(anatomy, kind, method)
    base = partial(Scores, kind, method, model=checkpoint.model_id, fingerprint=model_fingerprint(checkpoint))
    if method in FROM_WEIGHTS:
        from langslice.scoring.magnitude import head_norms, neuron_norms

        norms = (head_norms if kind == "heads" else neuron_norms)(checkpoint, anatomy, int(method[1:]), report)
        columns = averaged({OVERALL: [norms, norms]}, overall=False)  # read twice would be the same: spread 0
        return base(**columns)
    from langslice.scoring.texts import read_score_texts

    lines, names = read_score_texts(texts, text_field=text_field, report=report)
    needed = BY_LANGUAGE.get(method, 0)
    if needed and len(set(lines) - {OVERALL}) < needed:
        raise ScoreError(
            f"{method} compares languages and needs text of at least {needed}, each under its code",
            hint="--calibration ko=ko.txt --calibration en=en.txt",
        )
    from langslice.scoring.model_runs import open_running

    running = open_running(checkpoint, anatomy, whole=method in FROM_GRADIENTS, max_tokens=settings.max_tokens)
    measured = _measure(running, kind, method, lines, settings, report)
    columns = averaged(measured, overall=method != "lape")
    return base(
        **columns, texts=names, seeds=settings.seeds, loss=running.reader.task if method in _PREDICTING else "",
        settings=_numbers(method, settings), notes=running.reader.notes if method in _PREDICTING else (),
    )  # fmt: skip


def default_method(kind: str, *, text: bool) -> str:
    """The method where none is named: the one that chooses best with text, or without. Raises ScoreError for a kind."""
    _check_kind(kind)
    return DEFAULTS[kind][0 if text else 1]


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ScoreError(f"cannot score `{kind}`; {_near(kind, KINDS)}", hint=f"one of {', '.join(KINDS)}")


def check_method(kind: str, method: str) -> None:
    """Refuse a kind or method that does not exist, with the nearest that does."""
    _check_kind(kind)
    known = METHODS[kind]
    if method in known:
        return
    elsewhere = [other for other in KINDS if method in METHODS[other]]
    if elsewhere:
        raise ScoreError(
            f"`{method}` scores {' and '.join(elsewhere)}, not {kind}", hint=f"for {kind}: {', '.join(known)}"
        )
    raise ScoreError(f"unknown method `{method}` for {kind}; {_near(method, known)}", hint=f"one of {', '.join(known)}")


def _near(word: str, known: Any) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"did you mean `{found[0]}`?" if found else "nothing that is known is like it"


def _check_anatomy(anatomy: Anatomy, kind: str, method: str) -> None:
    model_type = anatomy.body.model_types[0]
    if kind == "layers" and not all(fields.layers for fields in anatomy.body.stacks.values()):
        raise ScoreError(
            f"the layers of `{model_type}` share one set of weights, so that none can be scored or removed",
            hint="its heads and neurons can be scored",
        )
    if kind == "heads" and not anatomy.heads:
        raise ScoreError(f"no attention heads were found in this `{model_type}` model")
    fed = [place for place in anatomy.heads if place.endswith(".cross") and "encoder" not in anatomy.layers]
    if kind == "heads" and fed and method not in FROM_WEIGHTS:
        raise ScoreError(
            f"{fed[0]} reads an encoder that is no part of this checkpoint, so that text cannot score its heads",
            hint="l1 and l2 score heads from the weights alone; text scores layers and neurons",
        )
    if kind == "experts" and not any(anatomy.experts.values()):
        why = anatomy.body.refused.get("experts", "it has none that a router chooses from")
        raise ScoreError(f"no experts of this `{model_type}` model can be scored: {why}")
    experts = [layer for layers in anatomy.expert_layers.values() for layer in layers]
    if kind == "neurons" and experts and method not in FROM_WEIGHTS:
        raise ScoreError(
            f"layer {min(experts)} has experts, whose neurons {method} cannot score: each token runs through few of them",
            hint="l1 and l2 score the neurons of experts, summed over experts",
        )


def _measure(
    running: Any, kind: str, method: str, lines: Mapping[str, Sequence[str]], settings: ScoreSettings, report: Report
) -> dict[str, list[Values]]:
    """Language -> what each seed measured."""
    from langslice.scoring.batches import make_batches
    from langslice.scoring.texts import sample_lines

    predict = method in _PREDICTING
    size = {"tokens_per_batch": _GATE_TOKENS} if method == "gates" else {}

    def batches(language: str, seed: int) -> list[Any]:
        return make_batches(
            running.reader, sample_lines(lines[language], seed, settings.samples), seed, predict=predict, **size
        )

    if method == "perplexity":
        from langslice.scoring.forward import greedy_losses

        pooled = [[one for language in lines for one in batches(language, seed)] for seed in settings.seeds]
        return {OVERALL: greedy_losses(running, pooled, count=settings.count, report=report)}
    function = _function(kind, method, settings, report)
    measured: dict[str, list[Values]] = {}
    total = len(lines) * len(settings.seeds)
    for language in lines:
        for seed in settings.seeds:
            done = sum(map(len, measured.values()))
            report(f"scoring {kind} by {method}, {done} of {total} samples", 0, 0)
            measured.setdefault(language, []).append(_finite(function(running, batches(language, seed), seed), method))
    return measured


def _function(kind: str, method: str, settings: ScoreSettings, report: Report) -> Callable[..., Values]:
    from langslice.scoring import forward, gradients, routing

    functions: dict[str, Callable[..., Values]] = {
        "block-influence": forward.block_influence,
        "angular": partial(forward.angular_distance, run=settings.run),
        "gradient": gradients.head_importance,
        "gates": partial(gradients.head_gates, steps=settings.steps, penalty=settings.penalty, report=report),
        "lahis": gradients.language_importance,
        "activation": forward.mean_activation,
        "taylor": gradients.neuron_taylor,
        "lape": forward.activation_probability,
        "routed": routing.routed_share,
    }
    return functions[method]


def _finite(values: Values, method: str) -> Values:
    for place, layers in values.items():
        for layer, scores in layers.items():
            if not np.isfinite(scores).all():
                raise ScoreError(
                    f"{method} gives no finite number at {place} layer {layer}: the model overflows on this text"
                )
    return values


def _numbers(method: str, settings: ScoreSettings) -> dict[str, float]:
    names = ["samples", "max_tokens"]
    names += {"angular": ["run"], "gates": ["steps", "penalty"], "perplexity": ["count"]}.get(method, [])
    return {name: value for name in names if (value := getattr(settings, name)) is not None}


__all__ = ["METHODS", "LangsliceError", "ScoreSettings", "check_method", "compute", "default_method"]
