"""What mwanda.py compares, and its measurements: pruned copies, bits per byte, label scores."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ONLY_KEPT, WORK, data, ntrex, second_halves, sliced, step

PAGE, MODEL = "mwanda", "gemma-3-270m"
MIXED, UNSEEN = ("en", "ko", "zh", "de", "sw", "id"), ("ja", "tr")
# Lines to calibrate on come before this one, lines to measure on after it.
BORDER, LINES, BY_LANGUAGE = 1300, 24, 8
LONGEST = 160  # bytes of the English line, for time
SHOTS = 4
XCOPA, CHOICES = ("zh", "id"), 200
KORNLI = 201  # three hypotheses to a premise
HALVES = 96
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Condition:
    """One way to prune.

    data    which calibration data: "mixed", a language, "mt", or "" for none
    more    entries of SparsityRequest other than its sparsity or pattern
    """

    name: str
    data: str
    more: dict[str, Any] = field(default_factory=dict)


CRITERION = {"score": "mwanda"}
CONDITIONS = {
    one.name: one
    for one in (
        Condition("magnitude", "", {"score": "magnitude"}),
        Condition("wanda-mixed", "mixed"),
        Condition("wanda-en", "en"),
        Condition("wanda-ko", "ko"),
        Condition("wanda-mt", "mt"),
        Condition("mwanda", "mixed", {**CRITERION, "allocation": "languages"}),
        Condition("criterion", "mixed", CRITERION),
        Condition("by-layer", "mixed", {"allocation": "languages"}),
        Condition("reversed", "mixed"),  # the shares of "by-layer" the other way round: a control
        Condition("outliers", "mixed", {"allocation": "outliers"}),
        Condition("variation", "mixed", {**CRITERION, "activity_weight": 0.0}),
        Condition("activity", "mixed", {**CRITERION, "variation_weight": 0.0}),
    )
}
HALF, GROUPS = "0.5", "2:4"
TELLING = ("wanda-mixed", "mwanda", "wanda-ko", "wanda-en")
TASKS = ("halves-ko", "kornli", "xcopa-id")
# The most telling first: condition, pattern, calibration seed, what is measured.
RUNS = (
    *((name, HALF, 0, "bytes") for name in TELLING),
    *((name, GROUPS, 0, "bytes") for name in ("wanda-mixed", "criterion")),
    *((name, HALF, 0, "bytes") for name in ("criterion", "by-layer")),
    *((name, HALF, 0, "bytes") for name in ("reversed", "wanda-mt", "magnitude")),
    *((name, GROUPS, 0, "bytes") for name in ("wanda-ko", "wanda-en")),
    *(
        (name, HALF, 0, "halves-ko")
        for name in (*TELLING, "wanda-mt", "magnitude", "criterion", "by-layer", "reversed")
    ),
    *((name, HALF, 0, "kornli") for name in TELLING),
    *((name, HALF, seed, "bytes") for seed in SEEDS[1:] for name in ("wanda-mixed", "mwanda")),
    *((name, HALF, 0, "bytes") for name in ("variation", "activity", "outliers")),
    *((name, HALF, 0, "xcopa-id") for name in TELLING),
    *((name, HALF, 0, task) for task in TASKS[1:] for name in ("wanda-mt", "magnitude")),
    *((name, GROUPS, 0, "bytes") for name in ("wanda-mt", "magnitude")),
)


def lines_of(first: int, last: int) -> list[int]:
    """Numbers of the lines that are not long, in a range."""
    return [at for at, line in enumerate(ntrex("en")) if first <= at < last and len(line.encode()) <= LONGEST]


def heldout(language: str) -> list[str]:
    """Lines to measure on, parallel between languages."""
    numbers = lines_of(BORDER, len(ntrex("en")))
    return [ntrex(language)[at] for at in numbers[:: len(numbers) // LINES][:LINES]]


def examples(task: str) -> tuple[tuple[str, str], list[Any]]:
    """(task, language) and its questions."""
    from langslice.evaluation.choice_tasks import load_task, read_examples

    if task.startswith("halves"):
        language = task.removeprefix("halves-")
        return ("halves", language), second_halves(language, lines_of(BORDER, len(ntrex("en"))), HALVES)
    name, language, limit = (
        ("xnli", "ko", KORNLI) if task == "kornli" else ("xcopa", task.removeprefix("xcopa-"), CHOICES)
    )
    return (name, language), read_examples(load_task(name), language, data(), limit=limit)


def calibration(kind: str, seed: int) -> list[Any]:
    """Demonstrations: as many lines of NTREX-128 of each kind, by seed."""
    from langslice.demonstrations import Demonstration
    from langslice.demonstrations.layout import Layout, parallel_demonstrations

    drawn = np.random.default_rng(seed).permutation(lines_of(0, BORDER))
    count = BY_LANGUAGE * len(MIXED)
    if kind == "mt":
        made = []
        others = [code for code in MIXED if code != "en"]
        for at, code in enumerate(others):
            lines = drawn[at * 20 : at * 20 + count // len(others) // 2]  # 4 pairs each
            pairs = [(ntrex("en")[line], ntrex(code)[line]) for line in lines]
            made += parallel_demonstrations(pairs, ("en", code), Layout(shots=2, count=len(pairs) // 2, order="file"))
        return made
    made = []
    for code in MIXED if kind == "mixed" else (kind,):
        lines = [ntrex(code)[line] for line in drawn[: BY_LANGUAGE if kind == "mixed" else count]]
        made += [
            Demonstration("mono", tuple(lines[at : at + SHOTS]), "\n", (code,)) for at in range(0, len(lines), SHOTS)
        ]
    return made


def small() -> tuple[Path, dict[str, Any]]:
    """The model with the tokens of all text used here: its blocks are the whole, its output head takes little time."""
    texts = WORK / PAGE / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    for code in (*MIXED, *UNSEEN):
        (texts / f"{code}.txt").write_text("\n".join(ntrex(code)) + "\n")
    tasks = ("kornli", *(f"xcopa-{code}" for code in XCOPA))
    asked = [text for task in tasks for one in examples(task)[1] for text in (one.prompt, *one.candidates)]
    (texts / "tasks.txt").write_text("\n".join(asked) + "\n")
    names = " ".join(("English", "Korean", "Chinese", "German", "Swahili", "Indonesian"))
    (texts / "names.txt").write_text("\n".join(f"{name}:" for name in names.split()) + "\n")
    return sliced(PAGE, "source", MODEL, "--corpus", texts)


def measured(folder: Path, kind: str) -> Any:
    """Bits and bytes of each line by language, or label scores of each question of a task, then the right label's number."""
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.perplexity import measure_perplexity
    from langslice.evaluation.zero_shot import label_scores

    loaded = load_model(folder, device="cpu")
    loaded.logits_limit = 1 << 24  # larger passes than usual, for time
    if kind != "bytes":
        name, asked = examples(kind)
        return {
            score: [[*map(float, scores), one.answer] for scores, one in zip(found, asked, strict=True)]
            for score, found in label_scores(loaded, name, asked, ("sum", "paper")).items()
        }
    found = {}
    for code in (*MIXED, *UNSEEN):
        each = measure_perplexity(loaded, code, heldout(code))
        found[code] = next(one for one in each if one.metric == "bits per byte").items.tolist()
    return found


def pruned(source: Path, name: str, pattern: str, seed: int) -> tuple[Path, dict[str, Any]]:
    """A pruned copy, made where it is not there, and what was done."""
    from langslice.sparsity import SparsityRequest, prune_copy

    condition = CONDITIONS[name]
    out = WORK / PAGE / f"{name}-{pattern.replace(':', 'of')}-{seed}"

    def make() -> dict[str, Any]:
        shutil.rmtree(out, ignore_errors=True)
        started = time.process_time()
        keep = tuple(calibration(condition.data, seed)) if condition.data else ()
        amount: dict[str, Any] = {"sparsity": 0.5} if pattern == HALF else {"pattern": pattern}
        if name == "reversed":
            shares = step(PAGE, f"by-layer-0.5-{seed}-prune", dict)["shares"]
            amount["allocation"] = ",".join(f"*.layers.{block}.*={1 - share:.9f}" for block, share in shares.items())
        done = prune_copy(source, out, SparsityRequest(**amount, keep_demos=keep, **condition.more))
        shares = {key.split(".")[2]: one.asked for key, one in done.tensors.items()}
        return {
            "cpu_seconds": time.process_time() - started, "prompts": dict(done.prompts), "tokens": dict(done.tokens),
            "zeros": done.zeros / done.size, "shares": shares,
        }  # fmt: skip

    found = step(PAGE, f"{out.name}-prune", make)
    if not out.is_dir():
        make()
    return out, found


def collect() -> dict[str, Any]:
    """Everything that was measured, by name, pattern and seed."""
    source, made = small()
    document: dict[str, Any] = {"slice": made, "conditions": {}}
    document["dense"] = {
        kind: step(PAGE, f"dense-{kind}", lambda kind=kind: measured(source, kind))
        for kind in ("bytes", *TASKS, "xcopa-zh")
    }
    for name, pattern, seed, kind in RUNS:
        stem = f"{name}-{pattern.replace(':', 'of')}-{seed}"
        entry = document["conditions"].setdefault(f"{name} {pattern} {seed}", {})
        if (WORK / PAGE / f"{stem}-{kind}.json").is_file() or ONLY_KEPT:
            out, entry["pruned"] = WORK / PAGE / stem, step(PAGE, f"{stem}-prune", dict, only_kept=True)
        else:
            out, entry["pruned"] = pruned(source, name, pattern, seed)
        entry[kind] = step(PAGE, f"{stem}-{kind}", lambda out=out, kind=kind: measured(out, kind))
    return document
