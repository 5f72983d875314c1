"""What a short training brings back of trained models that were sliced: bits per byte of gemma-3-270m, cosine of e5-small.

    python benchmarks/real/healing.py [JOB ...]      all, or some; each goes on where it was stopped

Text: the documents of NTREX-128, XQuAD and UDHR that training/ does not hold out, and premises of KorNLI. Measured: lines of the
NTREX-128 documents that are held out. The teacher is the whole model. Writes results/real/healing.md.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
from common import ROOT, WORK, data, models, sliced, step

PAGE = "healing"
GEMMA, E5 = "gemma-3-270m", "multilingual-e5-small"
LANGUAGES = ("ko", "en")
LINES = 150
_CUTS = {
    "64,000 rows": (GEMMA, ("-l", "ko,en", "--max-vocab", 64000)),
    "32,000 rows": (GEMMA, ("-l", "ko,en", "--max-vocab", 32000)),
    "default rows": (GEMMA, ("-l", "ko,en")),
    "6 of 18 layers out": (GEMMA, ("-l", "ko,en", "--drop-layers", "9-14")),
    "25% of neurons out": (GEMMA, ("-l", "ko,en", "--neurons-sparsity", 0.25)),
    "4 of 12 layers out": (E5, ("-l", "ko,en", "--drop-layers", "5-8")),
}
# Short sequences, and matrix products in bfloat16, so that a step takes seconds of one core; weights and the teacher are float32.
_GEMMA = {
    "batch_size": 8, "seq_length": 64, "steps": 100, "eval_every": 25, "heldout": 0.01, "save_every": 25,
    "dtype": "bfloat16", "device": "cpu", "teacher_cache": str(WORK / PAGE / "teacher"),
}  # fmt: skip
_E5 = {
    "batch_size": 32, "seq_length": 96, "steps": 150, "eval_every": 30, "heldout": 0.01, "save_every": 50,
    "dtype": "bfloat16", "device": "cpu", "objective": "mse",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A slice that is healed in one way."""

    cut: str
    way: str
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)


JOBS = {
    "e5-layers": Job("4 of 12 layers out", "all, towards the original", {**_E5, "learning_rate": 1e-4}, (0, 1, 2)),
    "e5-layers-lora": Job(
        "4 of 12 layers out", "LoRA, towards the original", {**_E5, "lora": 16, "learning_rate": 5e-4}
    ),
    "64k-embeddings": Job("64,000 rows", "embeddings", {**_GEMMA, "train": ["embeddings"], "learning_rate": 5e-4}),
    "64k-lora": Job("64,000 rows", "LoRA", {**_GEMMA, "lora": 16, "learning_rate": 5e-4}),
    "64k-all": Job("64,000 rows", "all", {**_GEMMA, "learning_rate": 5e-5}),
    "control": Job("default rows", "all", {**_GEMMA, "learning_rate": 5e-5}),
    "layers-all": Job("6 of 18 layers out", "all", {**_GEMMA, "learning_rate": 2e-4}),
    "neurons-all": Job("25% of neurons out", "all", {**_GEMMA, "learning_rate": 1e-4}),
    "32k-embeddings": Job("32,000 rows", "embeddings", {**_GEMMA, "train": ["embeddings"], "learning_rate": 5e-4}),
    "64k-embeddings-more": Job(
        "64,000 rows", "embeddings", {**_GEMMA, "train": ["embeddings"], "learning_rate": 5e-4}, (1, 2)
    ),
}


def documents(*, joined: bool = True) -> tuple[list[str], dict[str, list[str]]]:
    """Training documents (or their lines), shuffled, and lines of the held-out documents of NTREX-128 by language."""
    sys.path.insert(0, str(ROOT / "training"))
    from sources import join_sentences, read_ntrex, read_udhr, read_xquad

    train: list[str] = []
    apart: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    kinds = {"ntrex": read_ntrex(data() / "ntrex128"), "xquad": read_xquad(data() / "xquad"),
             "udhr": read_udhr(data() / "udhr")}  # fmt: skip
    for kind, found in kinds.items():
        for document in found:
            for language in (one for one in LANGUAGES if one in document.lines):
                if not document.heldout:
                    lines = document.lines[language]
                    train += [join_sentences(language, lines)] if joined else lines
                elif kind == "ntrex":
                    apart[language] += document.lines[language]
    rows = (data() / "kornlu/xnli.dev.ko.tsv").read_text(encoding="utf-8").splitlines()[1:]
    train += list(dict.fromkeys(row.split("\t")[0] for row in rows))
    random.Random(0).shuffle(train)
    return train, {language: lines[:LINES] for language, lines in apart.items()}


def text_file(model: str) -> Path:
    """Training documents, one on a line; for embeddings their sentences."""
    path = WORK / PAGE / f"{model}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = documents(joined=model == GEMMA)[0]
        path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    return path


def quality(model: str, folder: Path) -> dict[str, list[list[float]]]:
    """Language -> items of its held-out lines: bits and bytes, or the distance of its embedding from the original's."""
    _, apart = documents()
    if model == GEMMA:
        from langslice.evaluation.loaded_model import load_model
        from langslice.evaluation.perplexity import measure_perplexity

        loaded = load_model(folder)
        return {
            language: next(
                m for m in measure_perplexity(loaded, language, lines) if m.metric == "bits per byte"
            ).items.tolist()
            for language, lines in apart.items()
        }
    from langslice.evaluation.embedding import embed, load_encoder

    vectors = {name: load_encoder(path, device="cpu") for name, path in (("original", models() / E5), ("this", folder))}
    return {
        language: (1 - (embed(vectors["original"], lines) * embed(vectors["this"], lines)).sum(1))[:, None].tolist()
        for language, lines in apart.items()
    }


def run(name: str, job: Job, seed: int) -> dict[str, Any]:
    """Heal once: CPU minutes, the loss along the way, and the quality at the end."""
    from langslice import heal

    model = _CUTS[job.cut][0]
    source, _ = sliced(PAGE, job.cut.replace(" ", "-"), *_cut(job.cut))
    out = WORK / PAGE / f"{name}-{seed}"
    cpu = time.process_time()
    found = heal(
        source,
        out,
        corpus=[str(text_file(model))],
        teacher=str(models() / model),
        seed=seed,
        overwrite=True,
        **job.options,
    )
    (curves,) = [out / name for name in found.files if name.endswith(".parquet")]
    curve = [row for row in pyarrow.parquet.read_table(curves).to_pylist() if row["heldout_loss"] is not None]
    return {
        "seconds": found.seconds, "cpu_seconds": time.process_time() - cpu, "loss": dict(found.loss), "curve": curve,
        "files": list(found.files), "resumed": found.resumed, "quality": quality(model, out),
    }  # fmt: skip


def _cut(name: str) -> tuple[Any, ...]:
    model, options = _CUTS[name]
    extra: tuple[Any, ...] = ("--no-verify",)
    if "--neurons-sparsity" in options:
        extra += ("--calibration", text_file(model), "--uniform")
    return (model, *options, *extra)


def main() -> None:
    """Run the jobs one after the other."""
    for name in sys.argv[1:] or JOBS:
        job = JOBS[name]
        source, _ = sliced(PAGE, job.cut.replace(" ", "-"), *_cut(job.cut))
        step(
            PAGE,
            f"{job.cut.replace(' ', '-')}-quality",
            lambda source=source, job=job: quality(_CUTS[job.cut][0], source),
        )
        for seed in job.seeds:
            step(PAGE, f"{name}-{seed}", lambda name=name, job=job, seed=seed: run(name, job, seed))


if __name__ == "__main__":
    main()
