"""The main flow of steering: text by language, what differs between languages, and an adapter of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langslice.errors import LanguageError, PlanError
from langslice.model.anatomy import Anatomy, read_anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.options import codes, listed
from langslice.progress import Report, silent
from langslice.scoring import model_fingerprint
from langslice.scoring.batches import make_batches
from langslice.scoring.model_runs import Running, open_running
from langslice.scoring.texts import read_score_texts
from langslice.steering.adapter import Steering
from langslice.steering.differences import STACK, mean_differences
from langslice.steering.folding import check_folds, find_biases, write_folded
from langslice.steering.neurons import steered_neurons
from langslice.steering.options import SteeringOptions
from langslice.structure.dropped_parts import parse_numbers

SEED = 0
_FOLD_LINES = 4


@dataclass(frozen=True)
class SteeringTexts:
    """Lines by language, and what they are called; the first language is the one to steer to."""

    lines: Mapping[str, Sequence[str]]
    names: tuple[str, ...]

    @property
    def target(self) -> str:
        """Language to steer to."""
        return next(iter(self.lines))


def make_steering(
    checkpoint: Checkpoint,
    texts: SteeringTexts,
    options: SteeringOptions,
    *,
    max_tokens: int = 512,
    report: Report = silent,
) -> Steering:
    """Measure what tells a language from others, as vectors to steer by.

    texts       as `read_texts` gives them
    max_tokens  longer lines are truncated
    Raises      PlanError for a model that does not generate, for layers that it has not, and where nothing is found;
                ScoreError, CheckpointError
    """
    anatomy = read_anatomy(checkpoint)
    layers = _layers(anatomy, options)
    running = open_running(checkpoint, anatomy, whole=False, max_tokens=max_tokens)
    _check_causal(running, checkpoint)
    batches = {code: make_batches(running.reader, lines, SEED, predict=False) for code, lines in texts.lines.items()}
    report(f"reading {', '.join(batches)}", 0, 0)
    if options.steer_by == "diffmean":
        found = mean_differences(running, batches, texts.target)
        vectors = {layer: found[layer].astype(np.float32) for layer in layers}
        sites = running.sites.layers
    else:
        marks = steered_neurons(running, batches, texts.target, options.steer_by)
        vectors = {layer: row for layer, row in marks.items() if layer in layers}
        sites = running.sites.neurons
    if not vectors:
        raise PlanError(f"no neuron to steer by is in layers {options.steer_layers}", "leave --steer-layers out")
    names = {module: name for name, module in running.model.named_modules()}
    sources = tuple(code for code in texts.lines if code != texts.target)
    return Steering(
        options.steer_by, texts.target, sources, _strength(options, len(vectors)),
        vectors, {layer: names[sites[STACK][layer]] for layer in vectors}, anatomy.layers[STACK], checkpoint.model_id,
        running.model.config.get_text_config().model_type, model_fingerprint(checkpoint), texts.names,
    )  # fmt: skip


def fold_steering(checkpoint: Checkpoint, steering: Steering, texts: SteeringTexts, folder: Path) -> None:
    """Write a checkpoint of the unmodified class that steers without a hook: its biases hold the vectors.

    texts    lines on which it is tried, before anything is written, whether that is the same as the hook
    folder   a new folder, or an empty one
    Raises   PlanError for a model without biases in the right place; VerificationError
    """
    running = open_running(checkpoint, read_anatomy(checkpoint), whole=True)
    biases = find_biases(running, checkpoint, steering)
    tried = [line for lines in texts.lines.values() for line in lines[:_FOLD_LINES]]
    check_folds(running, steering, make_batches(running.reader, tried, SEED, predict=True))
    folder.mkdir(parents=True, exist_ok=True)
    write_folded(checkpoint, steering, biases, folder)


def read_texts(options: SteeringOptions, data: str | Path | None = None) -> SteeringTexts:
    """Lines of the language to steer to and of those to steer away from: the user's, or those of a data folder or the package.

    data     folder of NTREX-128 or FLORES-200
    Raises   LanguageError for a language without text, or when there is none to steer away from; CorpusError, TaskError
    """
    target, sources = str(options.steer), codes(options.steer_from)
    if options.texts:
        given = options.texts if isinstance(options.texts, Mapping) else listed(options.texts)
        lines, names = read_score_texts(given, text_field=options.text_field)
        missing = next((code for code in [target, *sources] if code not in lines), None)
        if missing is not None:
            raise LanguageError(f"--calibration has no text in `{missing}`", f"pass --calibration {missing}=FILE")
        sources = sources or tuple(code for code in lines if code != target)
    else:
        from langslice.evaluation.parallel import read_lines

        sources = sources or ("en",)
        lines = read_lines("steer", [target, *sources], None if data is None else Path(data))
        names = tuple(f"{code}={'the package' if data is None else Path(data).name}" for code in lines)
    if not sources or target in sources:
        raise LanguageError(
            f"there is no other language than `{target}` to steer away from", "pass --steer-from en, and text of it"
        )
    chosen = {code: _sample(lines[code], options.samples) for code in (target, *sources)}
    return SteeringTexts(chosen, names)


def _sample(lines: Sequence[str], count: int) -> list[str]:
    """So many lines at random, or all of them, in their order."""
    chosen = random.Random(SEED).sample(range(len(lines)), min(count, len(lines)))
    return [lines[at] for at in sorted(chosen)]


def check_asked(options: SteeringOptions) -> None:
    """Refuse options that do not go together. Raises PlanError."""
    if options.steer is None:
        given = [name for name in ("steer_from", "steer_layers", "strength", "texts", "fold") if getattr(options, name)]
        if given:
            flag = "calibration" if given[0] == "texts" else given[0].replace("_", "-")
            raise PlanError(f"--{flag} is for --steer, which was not given", "pass --steer ko")
    elif options.steer_by == "zero" and options.strength is not None:
        raise PlanError("--strength is not for --steer-by zero, which multiplies by 0", "leave --strength out")
    elif options.steer_by != "diffmean" and options.fold:
        raise PlanError(
            f"--fold puts vectors into biases, and --steer-by {options.steer_by} has none", "leave --fold out"
        )


def _strength(options: SteeringOptions, layers: int) -> float:
    """The strength that was asked for; otherwise what adds up to one difference over the layers, twice a neuron, or none of it."""
    if options.strength is not None:
        return options.strength
    return {"diffmean": 1 / layers, "scale": 2.0, "zero": 0.0}[options.steer_by]


def _layers(anatomy: Anatomy, options: SteeringOptions) -> list[int]:
    """Layers to steer at. Raises PlanError for one that is not there, and for a model of several stacks."""
    if list(anatomy.layers) != [STACK]:
        raise PlanError(
            f"`{anatomy.body.model_types[0]}` has {' and '.join(anatomy.layers)}, and steering is of causal models",
            "steer a model that goes on writing a text",
        )
    count = anatomy.layers[STACK]
    if options.steer_layers is None:
        return list(range(count)) if options.steer_by != "diffmean" else middle_third(count)
    layers = parse_numbers(options.steer_layers, what="--steer-layers")
    if max(layers) >= count:
        raise PlanError(f"--steer-layers {options.steer_layers}: the model has layers 0 to {count - 1}")
    return sorted(set(layers))


def middle_third(count: int) -> list[int]:
    """The middle third of so many layers; at least one.

    Example  middle_third(18) == [6, 7, 8, 9, 10, 11]
    """
    return list(range(count // 3, max(count - count // 3, count // 3 + 1)))


def _check_causal(running: Running, checkpoint: Checkpoint) -> None:
    if running.reader.task != "causal":
        raise PlanError(
            f"{checkpoint.model_id}: {type(running.model).__name__} does not go on writing a text, and steering is for that",
            "steer a causal model",
        )
