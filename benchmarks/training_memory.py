"""What training costs after a vocabulary slice: a Qwen2-0.5B-shaped model sliced to ko+en against the whole one, in one run.

    LANGSLICE_ASSETS=... python benchmarks/training_memory.py [--rounds 2]

The shapes are those of Qwen2-0.5B (24 layers, hidden 896, 151,936 rows of tied embeddings), the weights random, the tokenizer real.
Each measurement is a process of its own that runs `langslice heal`'s own training; whole and slice take turns. Memory is the peak
resident size of the process; seconds are those of a step, the first left out. Writes results/training_memory.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
SHAPE = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "max_position_embeddings": 32_768, "tie_word_embeddings": True, "rope_theta": 1_000_000.0,
}  # fmt: skip
LANGUAGES = "ko,en"


def make_source(folder: Path, assets: Path) -> None:
    """Random bfloat16 weights of the true shapes, with the real tokenizer."""
    import shutil

    import torch
    import transformers

    config = transformers.Qwen2Config(**SHAPE, bos_token_id=151_643, eos_token_id=151_643)
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for path in (assets / "tokenizers/qwen2").iterdir():
        if path.name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(path, folder / path.name)


def child(arguments: list[str]) -> None:
    """One measured process: heal, and say what it took."""
    import torch

    from langslice.healing import HealOptions, heal

    model, out, corpus, options = arguments[0], arguments[1], arguments[2], json.loads(arguments[3])
    torch.set_num_threads(options.pop("threads"))
    times: list[float] = []

    def report(step: str, done: int, total: int) -> None:
        if step.startswith("healing"):
            times.append(time.perf_counter())
            cpu.append(time.process_time())

    cpu: list[float] = []
    settings = HealOptions(corpus=(corpus,), heldout=0.0, device="cpu", save_every=10_000, **options)
    heal(Path(model), Path(out), settings, report=report)
    steps = len(times) - 1
    print(json.dumps({"seconds": (times[-1] - times[0]) / steps, "cpu": (cpu[-1] - cpu[0]) / steps}))


def measure(model: Path, work: Path, corpus: Path, options: dict[str, object]) -> dict[str, float]:
    """Peak memory in MB, and seconds per step."""
    import shutil

    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--child", str(model), str(out), str(corpus), json.dumps(options)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"failed with {process.returncode}: {model}")
        output.seek(0)
        found = json.loads(output.read().decode().strip().splitlines()[-1])
    return {**found, "memory": usage.ru_maxrss / 1000}


def parameters(model: Path) -> int:
    """Parameters of a checkpoint, by its headers."""
    from langslice.model.checkpoint import open_checkpoint

    return sum(entry.size_bytes // 2 for entry in open_checkpoint(model).tensors.values())


def main() -> None:
    """Measure in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seq-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    assets = Path(os.environ.get("LANGSLICE_ASSETS", ROOT / "../shared/assets")).resolve()
    options = {
        "steps": given.steps, "batch_size": given.batch_size, "seq_length": given.seq_length, "threads": given.threads,
        "precision": "float32",
    }  # fmt: skip
    kinds: dict[str, dict[str, object]] = {"every weight": {}, "LoRA of rank 16": {"lora": 16}}
    with tempfile.TemporaryDirectory(prefix="langslice-memory-") as scratch:
        work = Path(scratch)
        source, cut = work / "whole", work / "slice"
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path; import training_memory as t\n"
        code += f"t.make_source(Path({str(source)!r}), Path({str(assets)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        command = ["-m", "langslice", "slice", source, "--languages", LANGUAGES, "--no-verify", "--quiet", "-o", cut]
        subprocess.run([sys.executable, *map(str, command)], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        corpus = work / "text.txt"
        lines = [
            (assets / f"data/ntrex128/newstest2019-{name}.txt").read_text(encoding="utf-8")
            for name in ("ref.kor", "src.eng")
        ]
        corpus.write_text("\n".join(lines), encoding="utf-8")
        sizes = {"whole": parameters(source), "slice": parameters(cut)}
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(given.rounds):
            for kind, further in kinds.items():
                for name, model in (("whole", source), ("slice", cut)):
                    figures = measure(model, work, corpus, {**options, **further})
                    print(kind, name, {key: round(value, 2) for key, value in figures.items()}, flush=True)
                    found.setdefault((kind, name), []).append(figures)
    text = report(found, sizes, given)
    print(text)
    (HERE / "results/training_memory.md").write_text(text, encoding="utf-8")


def report(
    found: dict[tuple[str, str], list[dict[str, float]]], sizes: dict[str, int], given: argparse.Namespace
) -> str:
    """The table."""
    lines = [
        "# Training a vocabulary slice against the whole model",
        "",
        f"`benchmarks/training_memory.py`: shapes of Qwen2-0.5B, random weights, real tokenizer; {sizes['whole'] / 1e6:.0f} M "
        f"parameters, sliced to {LANGUAGES} {sizes['slice'] / 1e6:.0f} M. `langslice heal` in float32 with AdamW, "
        f"{given.batch_size} rows of {given.seq_length} tokens per step, {given.rounds} rounds in turns, medians; ratios are "
        f"medians of the rounds' own. {os.cpu_count()} cores ({platform.machine()}) shared with other work, "
        f"{given.threads} threads, Python {platform.python_version()}, "
        f"torch {version('torch')}, transformers {version('transformers')}, "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        "| trained | model | peak memory, GB | CPU seconds per step | seconds per step | memory against whole | CPU against whole |",  # noqa: E501
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for kind, name in found:
        runs, whole = found[kind, name], found[kind, "whole"]
        row = [statistics.median(run[key] for run in runs) for key in ("memory", "cpu", "seconds")]
        ratios = ["", ""]
        if name == "slice":
            ratios = [
                f"{statistics.median(a[key] / b[key] for a, b in zip(runs, whole, strict=True)):.2f}"
                for key in ("memory", "cpu")
            ]
        lines.append(
            f"| {kind} | {name} | {row[0] / 1000:.2f} | {row[1]:.1f} | {row[2]:.1f} | {ratios[0]} | {ratios[1]} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
