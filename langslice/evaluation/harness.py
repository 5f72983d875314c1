"""Hand a checkpoint to lm-evaluation-harness, and take its scores, document by document where it keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.loaded_model import pick_device
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.options import EvaluateOptions

# What the harness reports next to scores.
_NO_SCORES = ("alias", "name", "sample_len", "sample_count")


def measure_harness(folder: Path, tasks: Sequence[str], settings: EvaluateOptions) -> list[Measurement]:
    """Run tasks of the harness on a model folder.

    tasks   names that the harness knows, or YAML files in its format
    Raises  TaskError without the package, or when the harness refuses a task
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise TaskError("lm-eval:NAME needs the package `lm_eval`", 'pip install "langslice[lm-eval]"') from error
    names = [_task_name(task) for task in tasks]
    folders = [str(Path(task).resolve().parent) for task in tasks if task.endswith((".yaml", ".yml"))]
    # The harness reads all its thousands of task files first, which own tasks do not need.
    known = TaskManager(include_path=folders or None, include_defaults=len(folders) < len(tasks))
    try:
        results = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder), "dtype": settings.dtype, "trust_remote_code": settings.trust_remote_code},
            tasks=names, task_manager=known, limit=settings.limit,
            device=pick_device(settings.device), batch_size=16, log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
    except Exception as error:  # the harness and the data sets under it raise anything
        raise TaskError(
            f"lm-evaluation-harness could not run {', '.join(names)}\n  {type(error).__name__}: {error}",
            "`lm_eval --tasks list` names its tasks; its data sets need the hub",
        ) from error
    return [found for name in results["results"] for found in _measurements(name, results)]


def _task_name(task: str) -> str:
    if not task.endswith((".yaml", ".yml")):
        return task
    import yaml

    try:
        document = yaml.load(Path(task).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        return str(document["task"])
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise TaskError(
            f"{task}: not a task file of lm-evaluation-harness: {error!r}", "it needs `task: name`"
        ) from error


def _measurements(name: str, results: Mapping[str, Any]) -> list[Measurement]:
    """Scores of one task: by document where each has a number, else the one number that the harness computed."""
    samples = results.get("samples", {}).get(name, [])
    found = []
    for key, value in results["results"][name].items():
        metric, _, filtered = key.partition(",")
        if metric in _NO_SCORES or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        own = [sample for sample in samples if sample.get("filter", filtered) == filtered]
        values = [sample.get(metric) for sample in sorted(own, key=lambda sample: int(sample["doc_id"]))]
        numbers = bool(values) and all(isinstance(item, int | float | np.number) for item in values)
        items = np.array(values if numbers else [value], dtype=np.float64)[:, None]
        higher = results.get("higher_is_better", {}).get(name, {}).get(metric, True)
        label = f"{metric} ({filtered})" if filtered not in ("", "none") else metric
        version = results.get("versions", {}).get(name)
        found.append(
            Measurement(
                f"lm-eval:{name}", "", label, "mean", items, "higher" if higher else "lower", {"version": version}
            )
        )
    return found
