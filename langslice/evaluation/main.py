"""The flow of an evaluation: read every task's data, then load each model once and measure it, then compare.

Nothing is loaded before all data is read, so that a missing file costs no time.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langslice.errors import TaskError
from langslice.evaluation.loaded_model import Loaded, load_model, model_kind, pick_device
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.options import EvaluateOptions
from langslice.evaluation.results import Evaluation, compare
from langslice.evaluation.settings import make_settings
from langslice.evaluation.task_registry import Prepared, prepare
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.options import taking
from langslice.progress import Report, silent


@taking(EvaluateOptions)
def evaluate(
    model: str | Path,
    out: str | Path | None = None,
    *,
    options: EvaluateOptions,
    report: Report = silent,
) -> Evaluation:
    """Measure a model, or a model and its slice side by side, by task and language.

    model      a local folder, the id of a model on the hub, or `mini`, the packaged one
    out        a slice of it; without one, the model alone
    options    see EvaluateOptions
    Raises     TaskError, LanguageError, CheckpointError, TokenizerError
    """
    settings = make_settings(options)
    checkpoints = {"original": open_checkpoint(model)}
    if out is not None:
        checkpoints["slice"] = open_checkpoint(out)
    prepared = prepare(settings)
    for checkpoint in checkpoints.values():
        refuse_unfit(prepared, checkpoint, settings)
    notes: dict[str, list[str]] = {"tasks": list(prepared.notes)} if prepared.notes else {}
    measured: dict[str, list[Measurement]] = {}
    for role, checkpoint in checkpoints.items():
        measured[role], notes[role] = measure_model(checkpoint, prepared, settings, report, role)
    if prepared.speed:
        report("measuring speed", 0, 0)
        for role, found in speed_measurements(checkpoints, settings).items():
            measured[role] += found
    return Evaluation(
        {role: describe(checkpoint) for role, checkpoint in checkpoints.items()},
        asdict(settings),
        compare(measured["original"], measured.get("slice"), resamples=settings.resamples, seed=settings.seed),
        notes,
    )


def refuse_unfit(prepared: Prepared, checkpoint: Checkpoint, settings: EvaluateOptions) -> None:
    """Refuse tasks that a model's kind cannot do, before anything is loaded."""
    kind = model_kind(checkpoint.model_folder, trust_remote_code=settings.trust_remote_code)
    for name, fitting in prepared.kinds.items():
        if kind not in fitting:
            raise TaskError(
                f"task {name} does not fit {checkpoint.model_id}: it needs a model that is {' or '.join(fitting)}, "
                f"and this one is {kind}",
                "leave the task out",
            )


def measure_model(
    checkpoint: Checkpoint, prepared: Prepared, settings: EvaluateOptions, report: Report = silent, role: str = "model"
) -> tuple[list[Measurement], list[str]]:
    """Load a model and run every task on it, in order; the model is let go afterwards.

    Returns  measurements, and notes on how the model was run
    """
    found: list[Measurement] = []
    notes: list[str] = []
    if prepared.steps:
        loaded = _load(checkpoint, prepared, settings)
        for number, (name, step) in enumerate(prepared.steps.items()):
            report(f"{role}: {name}", number, 0)
            found += step(loaded)
        notes = loaded.notes
        del loaded
        gc.collect()
    if prepared.harness:
        from langslice.evaluation.harness import measure_harness

        report(f"{role}: lm-evaluation-harness", 0, 0)
        found += measure_harness(checkpoint.model_folder, prepared.harness, settings)
    found.append(_size_measurement(checkpoint))
    return found, notes


def _load(checkpoint: Checkpoint, prepared: Prepared, settings: EvaluateOptions) -> Loaded:
    if all(kinds == ("encoder",) for kinds in prepared.kinds.values()):
        from langslice.evaluation.embedding import load_encoder

        device = pick_device(settings.device)
        encoder = load_encoder(checkpoint.folder, device=device)
        return Loaded(checkpoint.folder, "encoder", encoder, None, None, 0)
    return load_model(
        checkpoint.model_folder, device=settings.device, dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )  # fmt: skip


def _size_measurement(checkpoint: Checkpoint) -> Measurement:
    import numpy as np

    size = float(sum(shard.path.stat().st_size for shard in checkpoint.shards))
    return Measurement("size", "", "weights, bytes", "mean", np.array([[size]]), "lower")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Name and sizes of a model."""
    from math import prod

    from langslice.model.axes import find_vocabulary_size
    from langslice.model.families import family_of

    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items() if name not in checkpoint.aliases}
    return {
        "name": checkpoint.model_id,
        "revision": checkpoint.revision,
        "model_type": checkpoint.config.get("model_type"),
        "size_bytes": sum(shard.path.stat().st_size for shard in checkpoint.shards),
        "parameters": sum(prod(shape) for shape in shapes.values()),
        "vocabulary": find_vocabulary_size(family_of(checkpoint.config), shapes),
    }


def speed_measurements(
    checkpoints: Mapping[str, Checkpoint], settings: EvaluateOptions
) -> dict[str, list[Measurement]]:
    """Speed and memory by role; round i of all models was run side by side, and so is paired."""
    import numpy as np

    from langslice.evaluation.speed import speed_rounds

    device = pick_device(settings.device)
    folders = {role: checkpoint.model_folder for role, checkpoint in checkpoints.items()}
    rounds = speed_rounds(
        folders,
        rounds=settings.rounds,
        options=[device, settings.dtype, *(["trusted"] if settings.trust_remote_code else [])],
    )
    metrics = (
        ("prefill, tokens per second", "prefill", "higher"),
        ("decode, tokens per second", "decode", "higher"),
        ("first token, seconds", "first_token_seconds", "lower"),
        ("peak memory, bytes", "memory_bytes", "lower"),
    )
    found: dict[str, list[Measurement]] = {}
    for role, runs in rounds.items():
        found[role] = []
        for metric, name, better in metrics:
            values = np.array([[float(getattr(run, name))] for run in runs])
            if values.any():  # an encoder writes no tokens
                found[role].append(Measurement("speed", "", metric, "median", values, better, {"device": device}))
    return found
