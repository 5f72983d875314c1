"""What a short training brings back: langslice-mini without two of its six layers, healed and distilled, loss by language.

    LANGSLICE_ASSETS=... python benchmarks/healing.py

Healing reads the running text that the model was trained on (NTREX-128, XQuAD and UDHR without the documents that training/
holds out): what a sliced model has forgotten, it is shown again. Loss is measured on the lines that ship with the model, written
for this project and in no training text, and on the held-out documents. Writes results/healing.md and results/healing.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import langslice
from langslice.evaluation.perplexity import load_causal, start_token
from langslice.healing import HealOptions, heal
from langslice.mini import heldout_text, mini_model_path

HERE = Path(__file__).parent
LANGUAGES = ("ko", "en")
DROPPED = "2,3"
SEEDS = (0, 1, 2)
KINDS = {"healed": {}, "distilled": {"teacher": str(mini_model_path()), "alpha": 0.5}}
_WINDOW = 256


def documents(assets: Path) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    """Training documents as (language, text), and held-out ones by language."""
    sys.path.insert(0, str(HERE.parent / "training"))
    from sources import join_sentences, read_ntrex, read_udhr, read_xquad

    data = assets / "data"
    found = [*read_ntrex(data / "ntrex128"), *read_xquad(data / "xquad"), *read_udhr(data / "udhr")]
    train: list[tuple[str, str]] = []
    apart: dict[str, list[str]] = {}
    for document in found:
        for language in (one for one in LANGUAGES if one in document.lines):
            lines = document.lines[language]
            text = join_sentences(language, lines)
            if document.heldout:
                apart.setdefault(language, []).append(text)
            else:
                train.append((language, text))
    return train, apart


def losses(folder: Path, apart: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Nats a token by language: on packaged lines, each by itself, and on held-out documents in windows."""
    from langslice.tokenizer import open_tokenizer

    model, tokenizer = load_causal(folder), open_tokenizer(folder)
    start = start_token(model.config)
    found: dict[str, dict[str, float]] = {"lines": {}, "documents": {}}
    for code in LANGUAGES:
        lines = [[start, *ids] for ids in tokenizer.encode(heldout_text(code))]
        found["lines"][code] = _loss(model, sorted(lines, key=len))
        text = [token for ids in tokenizer.encode(apart[code]) for token in (start, *ids)]
        windows = [text[at : at + _WINDOW] for at in range(0, len(text) - _WINDOW + 1, _WINDOW)]
        found["documents"][code] = _loss(model, windows)
    return found


def _loss(model: Any, rows: list[list[int]]) -> float:
    import torch

    total, tokens = 0.0, 0
    for first in range(0, len(rows), 16):
        batch = rows[first : first + 16]
        width = len(batch[-1])
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        real = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in batch])[:, 1:]
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[:, :-1]  # padding follows and is never read
        total += float(torch.nn.functional.cross_entropy(logits[real], ids[:, 1:][real], reduction="sum"))
        tokens += int(real.sum())
    return total / tokens


def measure(work: Path, assets: Path, steps: int, seeds: tuple[int, ...], rate: float) -> list[dict[str, Any]]:
    """Every model: kind, seed, seconds, losses."""
    train, apart = documents(assets)
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"language": one, "text": text}) + "\n" for one, text in train))
    source, whole, cut = mini_model_path(), work / "whole", work / "cut"
    kept = ",".join(LANGUAGES)
    langslice.slice(source, whole, languages=kept, overwrite=True)  # the original's own logits, of kept tokens
    langslice.slice(source, cut, languages=kept, drop_layers=DROPPED, overwrite=True)
    rows = [{"kind": "original", "seed": None, "seconds": 0.0, "losses": losses(whole, apart)}]
    rows.append({"kind": "cut", "seed": None, "seconds": 0.0, "losses": losses(cut, apart)})
    for row in rows:
        print(
            row["kind"],
            {name: round(statistics.mean(one.values()), 4) for name, one in row["losses"].items()},
            flush=True,
        )
    for seed in seeds:
        for kind, options in KINDS.items():
            out = work / f"{kind}-{seed}"
            settings = HealOptions(
                corpus=(str(corpus),), steps=steps, batch_size=4, seq_length=_WINDOW, learning_rate=rate, seed=seed,
                heldout=0.0, save_every=steps, device="cpu", **options,
            )  # fmt: skip
            cpu = time.process_time()
            result = heal(cut, out, settings, overwrite=True)
            cpu = time.process_time() - cpu
            row = {"kind": kind, "seed": seed, "seconds": result.seconds, "cpu": cpu, "losses": losses(out, apart)}
            rows.append(row)
            means = {name: round(statistics.mean(one.values()), 4) for name, one in row["losses"].items()}
            print(kind, seed, f"{result.seconds:.0f} s, {cpu:.0f} CPU s", means, flush=True)
    return rows


def table(rows: list[dict[str, Any]], text: str) -> list[str]:
    """Mean over seeds by language, lowest and highest seed of the mean."""
    codes = list(rows[0]["losses"][text])
    lines = [
        "| model | " + " | ".join(codes) + " | mean | seeds, lowest to highest |",
        "|---|" + "---:|" * (len(codes) + 2),
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        runs = [row["losses"][text] for row in rows if row["kind"] == kind]
        means = sorted(statistics.mean(run.values()) for run in runs)
        spread = f"{means[0]:.3f} to {means[-1]:.3f}" if len(means) > 1 else "–"
        values = [statistics.mean(run[code] for run in runs) for code in codes]
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {kind} | {cells} | {statistics.mean(values):.3f} | {spread} |")
    return lines


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """What the tables say, computed from them."""
    lines = []
    cut = next(row["losses"] for row in rows if row["kind"] == "cut")
    original = next(row["losses"] for row in rows if row["kind"] == "original")
    for text, what in (("lines", "packaged lines"), ("documents", "held-out documents")):
        healed = [row["losses"][text] for row in rows if row["kind"] == "healed"]
        distilled = [row["losses"][text] for row in rows if row["kind"] == "distilled"]
        better = sum(run[code] < cut[text][code] for run in healed for code in run)
        best = sum(one[code] <= other[code] for one, other in zip(distilled, healed, strict=True) for code in one)
        lost = statistics.mean(cut[text].values()) - statistics.mean(original[text].values())
        shares = [
            (statistics.mean(cut[text].values()) - statistics.mean(statistics.mean(run.values()) for run in runs))
            / lost
            for runs in (healed, distilled)
        ]
        total = len(healed) * len(cut[text])
        lines.append(
            f"- {what}: healed is better than slice in {better} of {total} cases (language and seed), distilled at least as good "
            f"as healed in {best} of {total}; of the loss that the slice cost, {shares[0]:.0%} and {shares[1]:.0%} came back."
        )
    return lines


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    assets = Path(os.environ.get("LANGSLICE_ASSETS", HERE.parent / "../shared/assets")).resolve()
    with tempfile.TemporaryDirectory(prefix="langslice-bench-") as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        rows = measure(work, assets, arguments.steps, SEEDS[: arguments.seeds], arguments.rate)
    import torch

    cpu = {kind: statistics.median(row["cpu"] for row in rows if row["kind"] == kind) for kind in KINDS}
    seconds = {kind: statistics.median(row["seconds"] for row in rows if row["kind"] == kind) for kind in KINDS}
    text = [
        "# Healing langslice-mini after a slice in depth\n",
        f"`benchmarks/healing.py`: layers {DROPPED} of 6 dropped, tokens kept for {' and '.join(LANGUAGES)} (of the "
        f"original too: its logits are those of the unsliced model, so that losses share one tokenizer); "
        f"{arguments.steps} steps of 4 rows of "
        f"{_WINDOW} tokens, AdamW at {arguments.rate:g}, {arguments.seeds} seeds, float32. Healing text: the training side of "
        "NTREX-128, XQuAD and UDHR, on which the model itself was trained. Distilled: half of the loss is the divergence from "
        "the unsliced model at temperature 1. Loss in nats per token.\n",
        f"A run took {seconds['healed'] / 60:.1f} minutes healed and {seconds['distilled'] / 60:.1f} distilled (medians; "
        f"{cpu['healed']:.0f} and {cpu['distilled']:.0f} CPU seconds, {torch.get_num_threads()} threads, on {os.cpu_count()} cores "
        f"({platform.machine()}) shared with other work). Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}, {time.strftime('%Y-%m-%d')}.\n",
        "## Packaged lines\nWritten for this project, in no training text.\n",
        *table(rows, "lines"),
        "\n## Held-out documents\nThe tenth of the same sources that no training read.\n",
        *table(rows, "documents"),
        "\nA share above 100% is no gain of slicing: the healed models were trained further on two languages, the original on "
        "eight and on code.\n",
        *findings(rows),
    ]
    print("\n".join(text))
    if not arguments.dry:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results/healing.md").write_text("\n".join(text) + "\n", encoding="utf-8")
        (HERE / "results/healing.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
