"""Calibration data by language: M-Wanda's criterion and shares by layer against Wanda, on gemma-3-270m.

    python benchmarks/real/mwanda.py

Weights go at a sparsity of 0.5 and at 2:4 by calibration data of several languages, of English, of Korean and of translations,
and by M-Wanda with each of its parts alone. Measured: bits per byte of NTREX-128 lines that calibrated nothing, XCOPA and KorNLI.
Writes results/real/mwanda.md.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ONLY_KEPT, WORK, data, ntrex, sliced, step

PAGE, MODEL = "mwanda", "gemma-3-270m"
MIXED, UNSEEN = ("en", "ko", "zh", "de", "sw", "id"), ("ja", "tr")
# Lines to calibrate on come before this one, lines to measure on after it.
BORDER, LINES, BY_LANGUAGE = 1300, 16, 8
SHOTS = 4
XCOPA, CHOICES = ("zh", "id"), 200
KORNLI = 201  # three hypotheses to a premise
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
        Condition("outliers", "mixed", {"allocation": "outliers"}),
        Condition("variation", "mixed", {**CRITERION, "activity_weight": 0.0}),
        Condition("activity", "mixed", {**CRITERION, "variation_weight": 0.0}),
    )
}
HALF, GROUPS = "0.5", "2:4"
TELLING = ("wanda-mixed", "mwanda", "wanda-ko", "wanda-en", "wanda-mt", "magnitude")
# The most telling first: condition, pattern, calibration seed, what is measured.
RUNS = (
    *((name, HALF, 0, "bytes") for name in TELLING),
    *((name, HALF, 0, "tasks") for name in ("wanda-mixed", "mwanda", "wanda-ko", "wanda-en")),
    *((name, GROUPS, 0, "bytes") for name in ("wanda-mixed", "criterion", "wanda-ko", "wanda-en")),
    *((name, HALF, 0, "bytes") for name in ("criterion", "by-layer")),
    *((name, HALF, seed, "bytes") for seed in SEEDS[1:] for name in ("wanda-mixed", "mwanda")),
    *((name, HALF, 0, "tasks") for name in ("wanda-mt", "magnitude")),
    *((name, GROUPS, 0, "bytes") for name in ("wanda-mt", "magnitude")),
    *((name, HALF, 0, "bytes") for name in ("variation", "activity", "outliers")),
    *((name, HALF, 0, "tasks") for name in ("criterion", "by-layer")),
)


def heldout(language: str) -> list[str]:
    """Lines to measure on, parallel between languages."""
    return ntrex(language)[BORDER : BORDER + 40 * LINES : 40]


def examples() -> dict[tuple[str, str], list[Any]]:
    """(task, language) -> questions."""
    from langslice.evaluation.choice_tasks import load_task, read_examples

    found = {("xcopa", code): read_examples(load_task("xcopa"), code, data(), limit=CHOICES) for code in XCOPA}
    found["xnli", "ko"] = read_examples(load_task("xnli"), "ko", data(), limit=KORNLI)
    return found


def calibration(kind: str, seed: int) -> list[Any]:
    """Demonstrations: as many lines of NTREX-128 of each kind, by seed."""
    from langslice.demonstrations import Demonstration
    from langslice.demonstrations.layout import Layout, parallel_demonstrations

    drawn = np.random.default_rng(seed).permutation(BORDER)
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
    asked = [text for each in examples().values() for one in each for text in (one.prompt, *one.candidates)]
    (texts / "tasks.txt").write_text("\n".join(asked) + "\n")
    names = " ".join(("English", "Korean", "Chinese", "German", "Swahili", "Indonesian"))
    (texts / "names.txt").write_text("\n".join(f"{name}:" for name in names.split()) + "\n")
    return sliced(PAGE, "source", MODEL, "--corpus", texts)


def measured(folder: Path, *, tasks: bool) -> dict[str, Any]:
    """Bits and bytes of each line by language, and label scores of each question with the right label."""
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.perplexity import measure_perplexity
    from langslice.evaluation.zero_shot import label_scores

    loaded = load_model(folder, device="cpu")
    if tasks:
        return {
            " ".join(name): {
                kind: [[*map(float, scores), one.answer] for scores, one in zip(found, asked, strict=True)]
                for kind, found in label_scores(loaded, name, asked, ("sum", "paper")).items()
            }
            for name, asked in examples().items()
        }
    found = {}
    for code in (*MIXED, *UNSEEN):
        each = next(one for one in measure_perplexity(loaded, code, heldout(code)) if one.metric == "bits per byte")
        found[code] = each.items.tolist()
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
    document["dense"] = {"bytes": step(PAGE, "dense-bytes", lambda: measured(source, tasks=False))}
    document["dense"]["tasks"] = step(PAGE, "dense-tasks", lambda: measured(source, tasks=True))
    for name, pattern, seed, kind in RUNS:
        stem = f"{name}-{pattern.replace(':', 'of')}-{seed}"
        entry = document["conditions"].setdefault(f"{name} {pattern} {seed}", {})
        if (WORK / PAGE / f"{stem}-{kind}.json").is_file() or ONLY_KEPT:
            out, entry["pruned"] = WORK / PAGE / stem, step(PAGE, f"{stem}-prune", dict, only_kept=True)
        else:
            out, entry["pruned"] = pruned(source, name, pattern, seed)
        entry[kind] = step(PAGE, f"{stem}-{kind}", lambda out=out, kind=kind: measured(out, tasks=kind == "tasks"))
    return document


if __name__ == "__main__":
    collect()
