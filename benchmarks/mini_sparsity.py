"""What weight pruning costs each language of langslice-mini: loss on its held-out text by score and sparsity.

    LANGSLICE_ASSETS=... python benchmarks/mini_sparsity.py

Demonstrations come from NTREX-128 (translation into English, and each language alone) and from HumanEval (code), laid out
as in arXiv 2409.16911, at most 512 tokens each; three seeds draw other sentences. The held-out text ships with the model
and is in none of them. Writes results/mini_sparsity.md, and the single measurements as results/mini_sparsity.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from langslice.demonstrations import (
    Demonstration,
    Layout,
    code_demonstrations,
    parallel_demonstrations,
    read_pairs,
    read_sentences,
    text_demonstrations,
)
from langslice.mini import heldout_languages, heldout_text, mini_model_path
from langslice.sparsity import SparsityRequest, prune_copy

HERE = Path(__file__).parent
SOURCES = {"fr": "fra", "es": "spa", "zh": "zho-CN"}  # the pairs of the paper
SPARSITIES = (0.1, 0.3, 0.5)
SEEDS = (0, 1, 2)
METHODS = ("mt", "mono", "mt-avoid-code", "random", "magnitude", "top")


def demonstrations(assets: Path, seed: int, count: int) -> dict[str, tuple[Demonstration, ...]]:
    """Translation, the same languages alone, and code; `count` of each in all."""
    ntrex = assets / "data/ntrex128"
    english = str(ntrex / "newstest2019-src.eng.txt")
    made: dict[str, list[Demonstration]] = {"mt": [], "mono": []}
    layout = Layout(shots=4, count=count // len(SOURCES), separator="{eos}", order="shuffled", seed=seed)
    for code, name in SOURCES.items():
        pairs = read_pairs([str(ntrex / f"newstest2019-ref.{name}.txt"), english], (code, "en"))
        made["mt"] += parallel_demonstrations(pairs, (code, "en"), layout)
    each = Layout(shots=4, count=count // (len(SOURCES) + 1), separator="{eos}", order="shuffled", seed=seed)
    for code, path in {
        "en": english,
        **{one: str(ntrex / f"newstest2019-ref.{name}.txt") for one, name in SOURCES.items()},
    }.items():
        made["mono"] += text_demonstrations(read_sentences([path]), code, each)
    records = read_sentences([str(assets / "data/humaneval/HumanEval.jsonl.gz")], text_field="prompt")
    answers = read_sentences([str(assets / "data/humaneval/HumanEval.jsonl.gz")], text_field="canonical_solution")
    functions = [f"{head}\n    {body}" for head, body in zip(records, answers, strict=True)]
    made["code"] = code_demonstrations(functions, Layout(count=count, order="shuffled", seed=seed))
    return {name: tuple(items) for name, items in made.items()}


def request(method: str, sparsity: float, seed: int, demos: dict[str, tuple[Demonstration, ...]]) -> SparsityRequest:
    """The request of one cell of the table."""
    if method in ("random", "magnitude"):
        return SparsityRequest(sparsity, score=method, seed=seed)
    keep = demos["mono" if method == "mono" else "mt"]
    avoid = demos["code"] if method == "mt-avoid-code" else ()
    return SparsityRequest(sparsity, keep_demos=keep, avoid_demos=avoid, score="top" if method == "top" else "wanda")


class HeldOut:
    """The held-out text of each language, tokenised once."""

    def __init__(self, folder: Path, lines: int) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        start = tokenizer.bos_token_id
        self.rows: dict[str, list[list[int]]] = {}
        for code in heldout_languages():
            encoded = tokenizer(heldout_text(code)[:lines], add_special_tokens=False)["input_ids"]
            self.rows[code] = sorted(([start, *ids] for ids in encoded), key=len)

    def losses(self, folder: Path) -> dict[str, float]:
        """Mean loss of each language in nats per token; each line by itself after the first token."""
        import torch
        import transformers

        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        found = {}
        for code, rows in self.rows.items():
            total, tokens = 0.0, 0
            for first in range(0, len(rows), 25):
                batch = rows[first : first + 25]
                width = len(batch[-1])
                ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
                real = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in batch])[:, 1:]
                with torch.inference_mode():
                    logits = model(input_ids=ids).logits[:, :-1]  # padding follows and is never read
                total += float(torch.nn.functional.cross_entropy(logits[real], ids[:, 1:][real], reduction="sum"))
                tokens += int(real.sum())
            found[code] = total / tokens
        return found


def measure(assets: Path, count: int, lines: int) -> list[dict[str, Any]]:
    """Every cell."""
    source = mini_model_path()
    text = HeldOut(source, lines)
    rows: list[dict[str, Any]] = [{"method": "unpruned", "sparsity": 0.0, "seed": 0, "losses": text.losses(source)}]
    with tempfile.TemporaryDirectory(prefix="langslice-bench-") as work:
        for seed in SEEDS:
            demos = demonstrations(assets, seed, count)
            for method in METHODS:
                if method == "magnitude" and seed != SEEDS[0]:
                    continue  # looks at nothing that a seed changes
                for sparsity in SPARSITIES:
                    out = Path(work) / f"{method}-{sparsity}-{seed}"
                    done = prune_copy(source, out, request(method, sparsity, seed, demos))
                    cell = {"method": method, "sparsity": sparsity, "seed": seed, "achieved": done.zeros / done.size}
                    rows.append({**cell, "losses": text.losses(out)})
                    print(method, sparsity, seed, round(statistics.mean(rows[-1]["losses"].values()), 4), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Loss by language, mean over seeds; the last column has the spread of the mean over seeds."""
    codes = list(rows[0]["losses"])
    lines = [
        "| method | sparsity | " + " | ".join(codes) + " | mean | lowest and highest seed |",
        "|---|---:|" + "---:|" * (len(codes) + 2),
    ]
    for method, sparsity in dict.fromkeys((row["method"], row["sparsity"]) for row in rows):
        cells = [row["losses"] for row in rows if (row["method"], row["sparsity"]) == (method, sparsity)]
        means = [statistics.mean(cell.values()) for cell in cells]
        values = [statistics.mean(cell[code] for cell in cells) for code in codes]
        spread = f"{min(means):.3f} to {max(means):.3f}" if len(means) > 1 else "–"
        shown = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {method} | {sparsity:.1f} | {shown} | {statistics.mean(means):.3f} | {spread} |")
    return lines


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """What the table says, in sentences that are computed from it."""
    base = statistics.mean(rows[0]["losses"].values())

    def mean(method: str, sparsity: float, seed: int | None = None) -> float:
        chosen = [r for r in rows if (r["method"], r["sparsity"]) == (method, sparsity) and seed in (None, r["seed"])]
        return statistics.mean(statistics.mean(row["losses"].values()) for row in chosen)

    lines = []
    for sparsity in SPARSITIES:
        order = sorted(METHODS, key=lambda method: mean(method, sparsity))
        listed = ", ".join(f"{method} {mean(method, sparsity) - base:+.3f}" for method in order)
        gaps = [mean("mt", sparsity, seed) - mean("mono", sparsity, seed) for seed in SEEDS]
        lines.append(
            f"- sparsity {sparsity}: change of the mean loss, best first: {listed}. mt minus mono by seed: "
            + ", ".join(f"{gap:+.4f}" for gap in gaps)
        )
    return lines


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=24, help="demonstrations of each kind")
    parser.add_argument("--lines", type=int, default=50, help="held-out lines of each language")
    arguments = parser.parse_args()
    assets = Path(os.environ.get("LANGSLICE_ASSETS", HERE.parent / "../shared/assets")).resolve()
    started = time.monotonic()
    rows = measure(assets, arguments.count, arguments.lines)
    seconds = time.monotonic() - started
    text = [
        "# What weight pruning costs langslice-mini, by language\n",
        f"Loss in nats per token on the first {arguments.lines} held-out lines of each language, all linear layers pruned, "
        f"means over {len(SEEDS)} calibration seeds; {arguments.count} demonstrations of each kind (fr-en, es-en, "
        f"zh-en from NTREX-128; HumanEval), at most 512 tokens. {time.strftime('%Y-%m-%d')}, {seconds:.0f} s.\n",
        "`mt`: Wanda on translation demonstrations. `mono`: on the same languages one at a time. `mt-avoid-code`: weights that "
        "serve code count less. `random`, `magnitude`: without demonstrations. `top`: the highest Wanda scores go.\n",
        *table(rows),
        "\n" + "\n".join(findings(rows)),
    ]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results/mini_sparsity.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    (HERE / "results/mini_sparsity.json").write_text(json.dumps(rows, indent=1))
    print("\n".join(text))


if __name__ == "__main__":
    main()
