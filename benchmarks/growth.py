"""How choosing grows with the vocabulary, and memory with the model.

    python benchmarks/growth.py [--runs 2] [--gigabytes 3 8 16] [--work FOLDER]

Vocabulary: Gemma's BPE tokenizer and XLM-R's Unigram tokenizer cut to their first 32,768 to 262,144 tokens, each planned for
Korean and English with an empty cache, as a whole process. Model: Qwen3-8B's tables and as many of its layers as give the
wanted size, in files without content (holes), sliced to Korean and English without verification; what is written is not a
hole. Writes results/growth.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from make_checkpoint import make_checkpoint
from whole_command import Measured, run

ROOT = Path(__file__).resolve().parents[1]
SIZES = (32_768, 65_536, 131_072, 262_144)
TOKENIZERS = {"BPE (Gemma)": "gemma-4", "Unigram (XLM-R)": "xlm-roberta"}


def cut(source: Path, folder: Path, size: int) -> int:
    """Write a tokenizer's first tokens as a tokenizer of their own; returns how many there are.

    In SentencePiece's BPE single characters have the last ids, the most frequent first: a quarter of the tokens are these.
    """
    document: dict[str, Any] = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    model = document["model"]
    if model["type"] == "BPE":
        tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
        letters = [token for token in tokens if len(token) == 1][: size // 4]
        chosen = {*tokens[:512], *letters}
        chosen.update(islice((token for token in tokens if token not in chosen), size - len(chosen)))
        model["vocab"] = {token: new for new, token in enumerate(token for token in tokens if token in chosen)}
        known = model["vocab"].keys()
        model["merges"] = [pair for pair in model["merges"] if known >= {*pair, "".join(pair)}]
    else:
        model["vocab"] = model["vocab"][:size]
    document["added_tokens"] = [entry for entry in document["added_tokens"] if entry["id"] < min(size, 512)]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return len(model["vocab"])


def cut_apart(source: Path, folder: Path, size: int) -> int:
    """Do it in a process that ends: a process starts with the peak of the one that starts it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cut, source, folder, size).result()


def by_vocabulary(work: Path, assets: Path, runs: int) -> list[dict[str, Any]]:
    """Processor seconds and memory of `plan`, smallest and largest in turns."""
    rows: list[dict[str, Any]] = []
    for kind, name in TOKENIZERS.items():
        folders = {size: work / f"{name}-{size}" for size in SIZES}
        tokens = {size: cut_apart(assets / "tokenizers" / name, folder, size) for size, folder in folders.items()}
        for _ in range(runs):
            for size, folder in folders.items():
                out = work / "plan.json"
                out.unlink(missing_ok=True)
                one = langslice(["plan", str(folder), "-l", "ko,en", "-o", str(out)], work)
                kept = len(json.loads(out.read_text(encoding="utf-8"))["kept"])
                rows.append({"kind": kind, "tokens": tokens[size], "kept": kept, **asdict(one)})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def by_model(work: Path, assets: Path, gigabytes: list[float]) -> list[dict[str, Any]]:
    """Memory and time of `slice --no-verify`."""
    rows: list[dict[str, Any]] = []
    for size in gigabytes:
        source, out = work / f"{size:g}", work / "out"
        make_checkpoint(source, size, sparse=True)
        for path in (assets / "tokenizers/qwen2").iterdir():
            if not path.name.startswith("reference"):
                shutil.copy(path, source)
        one = langslice(["slice", str(source), "-l", "ko,en", "--no-verify", "-o", str(out)], work)
        held, written = (sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 1e9 for folder in (source, out))
        rows.append({"gigabytes": held, "written": written, **asdict(one)})
        print(rows[-1], file=sys.stderr, flush=True)
        for folder in (source, out):
            shutil.rmtree(folder)
    return rows


def langslice(command: list[str], work: Path) -> Measured:
    """Run a command of the repository with an empty cache."""
    return run(ROOT, [sys.executable, "-m", "langslice", *command], "", work / "log.txt")


def page(vocabulary: list[dict[str, Any]], model: list[dict[str, Any]], runs: int) -> str:
    """Both tables, and how far the seconds are from a line."""
    lines = [
        "# Growth\n",
        f"`benchmarks/growth.py`: whole processes, median of {runs} runs; {os.cpu_count()} cores ({platform.machine()}) shared "
        f"with other work, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}.\n",
        "## Choosing, with the vocabulary\n",
        "`plan -l ko,en` of a tokenizer cut to its first tokens, with an empty cache.\n",
        "| tokenizer | tokens | kept | processor, s | peak MB |",
        "|---|--:|--:|--:|--:|",
    ]
    said = []
    for kind in TOKENIZERS:
        sizes = sorted({row["tokens"] for row in vocabulary if row["kind"] == kind})
        medians = []
        for size in sizes:
            found = [row for row in vocabulary if (row["kind"], row["tokens"]) == (kind, size)]
            cpu, peak = (statistics.median(row[key] for row in found) for key in ("cpu", "peak"))
            medians.append(cpu)
            lines.append(f"| {kind} | {size:,} | {found[0]['kept']:,} | {cpu:.1f} | {peak:,.0f} |")
        slope, start = np.polyfit(sizes, medians, 1)
        off = max(abs(cpu - start - slope * size) / cpu for size, cpu in zip(sizes, medians, strict=True))
        said.append(
            f"{kind}: {start:.1f} s and {slope * 1e5:.1f} s for every 100,000 tokens, at most {off:.0%} off that line; "
            f"{sizes[-1] / sizes[0]:.0f} times the tokens take {medians[-1] / medians[0]:.1f} times the seconds."
        )
    lines += ["", *(f"- {one}" for one in said), "", "## Memory, with the model\n"]
    lines += [
        "`slice -l ko,en --no-verify` of Qwen3-8B's tables and some of its layers, one run each.\n",
        "| weights, GB | written, GB | processor, s | wall, s | peak MB |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in model:
        cells = f"{row['cpu']:.1f} | {row['wall']:.0f} | {row['peak']:,.0f}"
        lines.append(f"| {row['gigabytes']:.1f} | {row['written']:.1f} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[3, 8, 16])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "langslice-growth")
    given = parser.parse_args()
    given.work.mkdir(parents=True)
    assets = Path(os.environ.get("LANGSLICE_ASSETS", ROOT / "../shared/assets")).resolve()
    try:
        vocabulary = by_vocabulary(given.work, assets, given.runs)
        model = by_model(given.work, assets, given.gigabytes)
    finally:
        shutil.rmtree(given.work)
    found = {"vocabulary": vocabulary, "model": model}
    (ROOT / "benchmarks/results/growth.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = page(vocabulary, model, given.runs)
    (ROOT / "benchmarks/results/growth.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
