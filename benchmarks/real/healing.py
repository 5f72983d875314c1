"""What a short training brings back of trained models that were sliced: bits per byte of gemma-3-270m, cosine of e5-small.

    python benchmarks/real/healing.py [JOB ...]      all, or some; each goes on where it was stopped

Text: the documents of NTREX-128, XQuAD and UDHR that training/ does not hold out, and premises of KorNLI. Measured: lines of the
NTREX-128 documents that are held out. The teacher is the whole model. Writes results/real/healing.md.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from common import ONLY_KEPT, RESULTS, ROOT, WORK, data, machine, models, sliced, step, table, write_page

PAGE = "healing"
GEMMA, E5 = "gemma-3-270m", "multilingual-e5-small"
LANGUAGES = ("ko", "en")
LINES = {GEMMA: 50, E5: 150}
_CUTS = {
    "64,000 rows": (GEMMA, ("-l", "ko,en", "--max-vocab", 64000)),
    "64,000 rows, mean start": (GEMMA, ("-l", "ko,en", "--max-vocab", 64000)),
    "32,000 rows": (GEMMA, ("-l", "ko,en", "--max-vocab", 32000)),
    "default rows": (GEMMA, ("-l", "ko,en")),
    "6 of 18 layers out": (GEMMA, ("-l", "ko,en", "--drop-layers", "9-14")),
    "25% of neurons out": (GEMMA, ("-l", "ko,en", "--neurons-sparsity", 0.25)),
    "4 of 12 layers out": (E5, ("-l", "ko,en", "--drop-layers", "5-8")),
}
# Short sequences, and matrix products in bfloat16, so that a step takes seconds of one core; weights and the teacher are float32.
_GEMMA = {
    "batch_size": 8, "seq_length": 64, "steps": 30, "eval_every": 10, "heldout": 0.01, "save_every": 10,
    "dtype": "bfloat16", "device": "cpu", "teacher_cache": str(WORK / PAGE / "teacher"),
}  # fmt: skip
_E5 = {
    "batch_size": 32, "seq_length": 96, "steps": 60, "eval_every": 15, "heldout": 0.01, "save_every": 30,
    "dtype": "bfloat16", "device": "cpu", "objective": "mse",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A slice that is healed in one way.

    mean  whether the rows of pieces start halfway to the mean of the dropped words that they spell now
    """

    cut: str
    way: str
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    mean: bool = False


JOBS = {
    "e5-layers": Job("4 of 12 layers out", "all, towards the original", {**_E5, "learning_rate": 1e-4}, (0, 1, 2)),
    "e5-layers-lora": Job(
        "4 of 12 layers out", "LoRA, towards the original", {**_E5, "lora": 16, "learning_rate": 5e-4}
    ),
    "64k-embeddings": Job("64,000 rows", "embeddings", {**_GEMMA, "train": ["embeddings"], "learning_rate": 2e-4}),
    "64k-lora": Job("64,000 rows", "LoRA", {**_GEMMA, "lora": 16, "learning_rate": 5e-4}),
    "64k-all": Job("64,000 rows", "all", {**_GEMMA, "learning_rate": 5e-5}, (0, 1, 2)),
    "control": Job("default rows", "all", {**_GEMMA, "learning_rate": 5e-5}, (0, 1, 2)),
    "layers-all": Job("6 of 18 layers out", "all", {**_GEMMA, "learning_rate": 2e-4}, (0, 1, 2)),
    "neurons-all": Job("25% of neurons out", "all", {**_GEMMA, "learning_rate": 1e-4}),
    "32k-embeddings": Job("32,000 rows", "embeddings", {**_GEMMA, "train": ["embeddings"], "learning_rate": 2e-4}),
    "64k-mean-all": Job("64,000 rows, mean start", "all", {**_GEMMA, "learning_rate": 5e-5}, mean=True),
    "32k-all": Job("32,000 rows", "all", {**_GEMMA, "learning_rate": 5e-5}),
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
    return train, apart


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
    apart = {language: lines[: LINES[model]] for language, lines in documents()[1].items()}
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
    source = source_of(job)
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


def source_of(job: Job) -> Path:
    """The slice that a job heals."""
    source, _ = sliced(PAGE, job.cut.replace(" ", "-"), *_cut(job.cut))
    if job.mean:
        step(PAGE, f"{job.cut.replace(' ', '-')}-start", lambda: start_from_means(models() / GEMMA, source))
    return source


def start_from_means(original: Path, source: Path) -> dict[str, int]:
    """Move the row of each piece that spells dropped words halfway to the mean of their rows; gives how many moved."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    name = "model.embed_tokens.weight"
    whole = load_file(original / "model.safetensors")[name].float()
    tensors = load_file(source / "model.safetensors")
    rows = tensors[name].float()
    kept = set(json.loads((source / "slice.json").read_text())["new_to_old"])
    before, after = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (original, source))
    total, count = torch.zeros_like(rows), torch.zeros(len(rows))
    dropped = [old for old in range(before.get_vocab_size()) if old not in kept and old < len(whole)]
    words = [before.id_to_token(old).replace("▁", " ") for old in dropped]
    for old, found in zip(dropped, after.encode_batch_fast(words, add_special_tokens=False), strict=True):
        pieces = torch.tensor(sorted(set(found.ids)), dtype=torch.int64)
        total[pieces] += whole[old]
        count[pieces] += 1
    moved = count > 0
    rows[moved] = (rows[moved] + total[moved] / count[moved, None]) / 2
    tensors[name] = rows.to(tensors[name].dtype)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    return {"moved": int(moved.sum()), "dropped": len(dropped)}


def _cut(name: str) -> tuple[Any, ...]:
    model, options = _CUTS[name]
    extra: tuple[Any, ...] = ("--no-verify",)
    if "--neurons-sparsity" in options:
        extra += ("--calibration", text_file(model), "--uniform")
    return (model, *options, *extra)


def main() -> None:
    """Run the jobs one after the other, and write the page of all that have been run."""
    asked = [] if ONLY_KEPT else sys.argv[1:] or list(JOBS)
    for name in asked:
        job = JOBS[name]
        model = _CUTS[job.cut][0]
        source = source_of(job)
        step(PAGE, f"{model}-quality", lambda model=model: quality(model, models() / model))
        step(PAGE, f"{job.cut.replace(' ', '-')}-quality", lambda source=source, model=model: quality(model, source))
        for seed in job.seeds:
            step(PAGE, f"{name}-{seed}", lambda name=name, job=job, seed=seed: run(name, job, seed))
            publish()
    publish()


def publish() -> None:
    """Write the page and its pictures of what has been run so far."""
    document = gathered()
    write_page(PAGE, document, page(document))
    for model, picture in pictures(document).items():
        (RESULTS / f"{PAGE}-{model}.svg").write_text(picture)


def gathered() -> dict[str, Any]:
    """What has been run so far: quality of originals and cuts, and every job and seed."""

    def kept(name: str) -> Any:
        path = WORK / PAGE / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    quality = {name: kept(f"{name.replace(' ', '-')}-quality") for name in (GEMMA, E5, *_CUTS)}
    runs = {
        name: {str(seed): found for seed in job.seeds if (found := kept(f"{name}-{seed}"))}
        for name, job in JOBS.items()
    }
    return {"machine": machine(), "quality": quality, "runs": {name: each for name, each in runs.items() if each}}


def compared(model: str, before: Any, after: Any) -> dict[str, Any]:
    """Language -> quality before and after, and the difference with its interval."""
    from langslice.evaluation.statistics import STATISTICS, difference

    statistic = "ratio" if model == GEMMA else "mean"
    found = {}
    for language in LANGUAGES:
        one, other = np.array(before[language]), np.array(after[language])
        score = STATISTICS[statistic]
        found[language] = (float(score(one[None])[0]), float(score(other[None])[0]), difference(statistic, one, other))
    return found


def cpu_minutes(job: Job, found: dict[str, Any]) -> float:
    """Of a whole run; of one that was stopped and taken up again, those of its last part, for as many steps as all of it."""
    steps = job.options["steps"]
    return float(found["cpu_seconds"]) / 60 * steps / (steps - found["resumed"])


def pictures(document: dict[str, Any]) -> dict[str, str]:
    """Model -> the share of the first held-out loss that is left, by CPU minutes, as SVG."""
    from langslice.reporting.line_chart import ChartLine, ChartPoint, line_chart

    lines: dict[str, list[ChartLine]] = {}
    for name, seeds in document["runs"].items():
        job = JOBS[name]
        for seed, found in seeds.items():
            minutes = cpu_minutes(job, found) / job.options["steps"]
            first = found["curve"][0]["heldout_loss"]
            points = tuple(ChartPoint(row["step"] * minutes, row["heldout_loss"] / first) for row in found["curve"])
            said = (
                re.sub(r" of \d+|% of", "", job.cut)
                + f", {job.way.split(',')[0]}"
                + (f" ({seed})" if len(job.seeds) > 1 else "")
            )
            lines.setdefault(_CUTS[job.cut][0], []).append(ChartLine(said, points, dashed=name == "control"))
    return {
        model: line_chart(f"{model}: healing", "CPU minutes", "held-out loss, of that of the cut", each)
        for model, each in lines.items()
    }


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    quality, rows, curves = document["quality"], [], []
    for name, seeds in document["runs"].items():
        job = JOBS[name]
        model = _CUTS[job.cut][0]
        for seed, found in seeds.items():
            healed = compared(model, quality[job.cut], found["quality"])
            lost = compared(model, quality[model], quality[job.cut])
            for language, (cut, after, change) in healed.items():
                original = lost[language][0]
                back = (cut - after) / (cut - original) if cut - original > 1e-4 else float("nan")
                rows.append([
                    job.cut, job.way, seed, language, f"{original:.4f}".replace("-0.0000", "0.0000"), f"{cut:.4f}", f"{after:.4f}",
                    f"{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]", f"{back:.0%}" if np.isfinite(back) else "–",
                    f"{cpu_minutes(job, found):.1f}",
                ])  # fmt: skip
            told = ", ".join(f"{row['step']}: {row['heldout_loss']:.3g}" for row in found["curve"])
            minutes = cpu_minutes(job, found) / job.options["steps"]
            curves.append(f"- {job.cut}, {job.way}, seed {seed}: {told} ({minutes:.3f} CPU minutes a step)")
    left = [f"{job.cut}, {job.way}" for name, job in JOBS.items() if name not in document["runs"]]
    head = [
        "cut",
        "trains",
        "seed",
        "language",
        "original",
        "cut",
        "healed",
        "healed - cut",
        "of the loss, back",
        "CPU min",
    ]
    return f"""# Healing trained models

`benchmarks/real/healing.py`: gemma-3-270m in bits per byte, multilingual-e5-small in 1 - cosine to the original's embeddings,
on {LINES[GEMMA]} and {LINES[E5]} lines of each language of NTREX-128 documents that no training read. The teacher is the whole
model. gemma: {_GEMMA["steps"]} steps of {_GEMMA["batch_size"]} sequences of {_GEMMA["seq_length"]} tokens; e5: {_E5["steps"]} steps
of {_E5["batch_size"]} sentences; matrix products in bfloat16.
A gemma job may take 15 CPU minutes at most: a small budget, and what it does not show, a longer training may.
{document["machine"]}

{table(head, rows, text_columns=4)}
"default rows" is the control: a model that lost next to nothing, trained alike. What it gains is gained by training on this kind of
text, not by healing.

## Held-out loss by step
The loss that is trained: of gemma half text and half teacher, in nats a token; of e5 the mean square distance to the teacher's
embedding.

{chr(10).join(curves)}

{chr(10).join(f"![](healing-{model}.svg)" for model in pictures(document))}

## Initial rows
A piece of a dropped word is a token of the original, with the row that the original trained for it, so that no row has to be made
up: that is the start everywhere above. "mean start" moves the row of each piece that now spells dropped words halfway to the mean
of the rows of these words (tied: input and output).

Not run: {"; ".join(left) or "nothing"}.
"""


if __name__ == "__main__":
    main()
