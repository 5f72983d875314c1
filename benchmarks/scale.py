"""Plan a 400 B-parameter model and a 10 TB corpus from units that are measured here.

    python benchmarks/scale.py --write benchmarks/results/scale.md
    python benchmarks/scale.py --machines 64 --cores 32 --disk-gb-s 2    # the same for another cluster

Measured on this machine: the headers of a checkpoint of the full size (its shards are sparse files), bytes rewritten and hashed,
text counted, products computed, weights scored. Computed from them: bytes moved, memory and time. Nothing is measured on a
cluster; that work divides evenly is an assumption, named in the output with the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

LAYERS, HIDDEN, WIDTH, QUERY, KEY, VOCABULARY, KEPT = 126, 16384, 53248, 16384, 1024, 128_256, 58_000
SHARDS = 191
PROMPTS, TOKENS = 128, 512
CORPUS_BYTES = 10 * 10**12
PART_BYTES = 256 << 20
BYTES = 2  # of a bfloat16


@dataclass(frozen=True)
class Units:
    """What one core, or the disk, of this machine does."""

    open_seconds: float  # the headers of the whole checkpoint
    open_mb: float  # peak memory of a process that has opened and planned it
    rewrite_s_per_gb: float  # wall, disk to disk
    rewrite_mb: float  # peak memory
    hash_s_per_gb: float  # CPU
    count_s_per_mb: float  # CPU
    count_mb: float  # peak memory of a process that counts 40 MB; tables are full at 200 MB more
    count_ready_s: float  # CPU until a worker has opened the tokenizer and found where text may be split
    add_s_per_part: float  # CPU, adding the counts of one part
    product_gflops: float  # float32, one core
    product_gflops_bf16: float
    score_s_per_gw: float  # CPU for a thousand million weights: score, partition, zero


def shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of a dense decoder of 405 B parameters."""
    table = (VOCABULARY, HIDDEN)
    found = {"model.embed_tokens.weight": table, "lm_head.weight": table, "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        of_layer = {
            "self_attn.q_proj": (QUERY, HIDDEN), "self_attn.k_proj": (KEY, HIDDEN), "self_attn.v_proj": (KEY, HIDDEN),
            "self_attn.o_proj": (HIDDEN, QUERY), "mlp.gate_proj": (WIDTH, HIDDEN), "mlp.up_proj": (WIDTH, HIDDEN),
            "mlp.down_proj": (HIDDEN, WIDTH), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
        }  # fmt: skip
        found.update({f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()})
    return found


def size(shape: tuple[int, ...]) -> int:
    """Elements."""
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def write_headers(folder: Path) -> int:
    """Write the checkpoint with true headers over holes that take no room; gives its apparent bytes."""
    from langslice.files.safetensors_header import build_header

    names = shapes()
    ordered, total = list(names), sum(map(size, names.values())) * BYTES
    shards: list[list[str]] = [[]]
    room = total / SHARDS
    for name in ordered:
        if room <= 0:
            shards.append([])
            room += total / SHARDS
        shards[-1].append(name)
        room -= size(names[name]) * BYTES
    weight_map = {}
    for number, part in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = [(name, "BF16", names[name], size(names[name]) * BYTES) for name in part]
        with (folder / file).open("wb") as stream:
            stream.write(build_header(tensors, {"format": "pt"}, (8, 0)))
            stream.truncate(stream.tell() + sum(item[3] for item in tensors))
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": 128, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": VOCABULARY, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return total


def timed(work: Callable[[], object], *, wall: bool = False) -> float:
    """Seconds of a call: of the CPU, or of the clock."""
    clock = time.monotonic if wall else time.process_time
    began = clock()
    work()
    return clock() - began


def alone(task: str, folder: Path) -> dict[str, float]:
    """Measure one task in a process of its own; gives its figures and its peak memory."""
    program = [sys.executable, __file__, "--measure", task, "--folder", str(folder)]
    done = subprocess.run(
        program, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_opening(folder: Path) -> dict[str, float]:
    """Read and check every header, and say of every tensor what happens to it."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.planning.source import Source
    from langslice.planning.tensors import plan_tensors

    seconds = timed(lambda: plan_tensors(Source(open_checkpoint(folder))))
    return {"open_seconds": seconds}


def measure_rewriting(folder: Path) -> dict[str, float]:
    """Rewrite one gigabyte, a quarter of it a table of which every second row stays."""
    import numpy as np

    from langslice.model.checkpoint import open_checkpoint
    from langslice.writing.shards import TensorEdit, write_shards

    checkpoint = open_checkpoint(folder)
    rows = checkpoint.shapes["table"][0]
    edits = {name: TensorEdit("keep") for name in checkpoint.tensors}
    edits["table"] = TensorEdit("slice", {0: np.arange(0, rows, 2)})
    out = folder / "out"
    out.mkdir()
    seconds = timed(lambda: write_shards(checkpoint, edits, out), wall=True)
    gigabytes = sum(tensor.size_bytes for tensor in checkpoint.tensors.values()) / 1e9
    return {"rewrite_s_per_gb": seconds / gigabytes}


def write_gigabyte(folder: Path) -> None:
    """One gigabyte of random bytes, out of the page cache."""
    from langslice.files.safetensors_header import build_header

    tensors = [
        ("table", "BF16", (32_768, 4096), 1 << 28),
        *((f"block{n}", "BF16", (65_536, 1024), 1 << 27) for n in range(6)),
    ]
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(build_header(tensors, {"format": "pt"}, (8, 0)))
        for _ in range(64):
            stream.write(os.urandom(1 << 24))
        stream.flush()
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_counting(folder: Path) -> dict[str, float]:
    """Count a part of a corpus as a task of a cluster does."""
    from langslice.corpus.sources import CorpusFile
    from langslice.counting.cluster_count import CorpusPart, _opened, _packed, count_part
    from langslice.counting.count import prepare
    from langslice.counting.counts import merge_counts
    from langslice.tokenizer import open_tokenizer

    tokenizer = folder / "tokenizer"
    packed = _packed(open_tokenizer(tokenizer), "llama", None)
    ready = timed(lambda: prepare(_opened(packed)))
    text = folder / "text.txt"
    part = CorpusPart(CorpusFile(text, "txt", ""), 0, text.stat().st_size)
    found = []
    seconds = timed(lambda: found.append(count_part(packed, part, "text", ())))
    adding = timed(lambda: [merge_counts([found[0], found[0]], [1.0, 1.0]) for _ in range(20)]) / 20
    return {"count_s_per_mb": seconds / (text.stat().st_size / 1e6), "count_ready_s": ready, "add_s_per_part": adding}


def write_text(folder: Path, assets: Path) -> str:
    """Natural text, the sources of this Python's library, and a tokenizer; says which."""
    from langslice.mini import mini_model_path

    found = assets / "tokenizers" / "o200k-base"
    (folder / "tokenizer").symlink_to(found if found.is_dir() else mini_model_path())
    library = Path(os.__file__).parent
    with (folder / "text.txt").open("w", encoding="utf-8") as stream:
        for path in sorted(library.rglob("*.py")):
            stream.write(path.read_text(encoding="utf-8", errors="replace"))
            if stream.tell() > 40 << 20:
                break
    return "o200k-base" if found.is_dir() else "that of langslice-mini"


def measure_computing(folder: Path) -> dict[str, float]:
    """Products of one core, and the scoring of weights; hashing."""
    import numpy as np
    import torch

    from langslice.sparsity.masks import lowest_of_rows
    from langslice.sparsity.scores import weight_scores

    torch.set_num_threads(1)
    found = {}
    for name, dtype in (("product_gflops", torch.float32), ("product_gflops_bf16", torch.bfloat16)):
        left, right = torch.randn(TOKENS, 4096).to(dtype), torch.randn(8192, 4096).to(dtype)
        left @ right.T
        seconds = timed(lambda left=left, right=right: [left @ right.T for _ in range(4)]) / 4
        found[name] = 2 * TOKENS * 4096 * 8192 / seconds / 1e9
    weight = np.random.default_rng(0).standard_normal((64, HIDDEN), dtype=np.float32)
    factors = np.abs(weight[0])

    def score() -> None:
        weight[lowest_of_rows(weight_scores(weight, factors), int(HIDDEN * 0.3))] = 0

    found["score_s_per_gw"] = timed(lambda: [score() for _ in range(8)]) / 8 / weight.size * 1e9
    block = os.urandom(1 << 26)
    found["hash_s_per_gb"] = timed(lambda: hashlib.sha256(block)) / len(block) * 1e9
    return found


MEASURES = {
    "opening": measure_opening, "rewriting": measure_rewriting, "counting": measure_counting, "computing": measure_computing,
}  # fmt: skip


PEAKS = {"opening": "open_mb", "rewriting": "rewrite_mb", "counting": "count_mb"}


def measure(assets: Path) -> tuple[Units, str]:
    """All units, and the name of the tokenizer that counted."""
    with tempfile.TemporaryDirectory(prefix="langslice-scale-") as name:
        folders = {task: Path(name) / task for task in MEASURES}
        for folder in folders.values():
            folder.mkdir()
        write_headers(folders["opening"])
        write_gigabyte(folders["rewriting"])
        tokenizer = write_text(folders["counting"], assets)
        found: dict[str, float] = {}
        for task, folder in folders.items():
            figures = alone(task, folder)
            peak = figures.pop("peak_mb")
            found |= figures
            if task in PEAKS:
                found[PEAKS[task]] = peak
    return Units(**found), tokenizer


def duration(seconds: float) -> str:
    """Seconds for people."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def plan(units: Units, machines: int, cores: int, disk_gb_s: float) -> list[tuple[str, str, str, str, str, str]]:
    """Job, bytes moved, memory, work of one core, time on the cluster, arithmetic."""
    weights = sum(map(size, shapes().values()))
    whole, table = weights * BYTES / 1e9, VOCABULARY * HIDDEN * BYTES / 1e9
    written = whole - 2 * table * (1 - KEPT / VOCABULARY)
    disk = duration((whole + written) / disk_gb_s)
    opening = (
        "read headers, plan the tensors", "headers only", f"{units.open_mb:.0f} MB", duration(units.open_seconds),
        "one machine", f"measured on {whole:,.0f} GB of shards with true headers",
    )  # fmt: skip
    rewriting = (
        "rewrite the vocabulary", f"read {whole:,.0f} GB, write {written:,.0f} GB", f"{units.rewrite_mb:.0f} MB",
        duration(units.rewrite_s_per_gb * whole), f"{disk} at {disk_gb_s:g} GB/s",
        f"{units.rewrite_s_per_gb:.2f} s/GB on this disk × {whole:,.0f} GB; ({whole:,.0f} + {written:,.0f}) / {disk_gb_s:g}",
    )  # fmt: skip
    hashing = (
        "hash the source for the record", f"read {whole:,.0f} GB", "constant", duration(units.hash_s_per_gb * whole),
        "one machine", f"{units.hash_s_per_gb:.2f} s/GB × {whole:,.0f} GB; left out with --no-verify",
    )  # fmt: skip
    comparing = (
        "compare outputs", f"read {2 * whole:,.0f} GB", f"{whole:,.0f} GB", "not measured", "one machine with that memory",
        "source and slice are each held once; the other checks need none of it",
    )  # fmt: skip
    counting = plan_counting(units, machines * cores)
    return [opening, rewriting, hashing, comparing, counting, *plan_pruning(units, machines, cores)]


def plan_counting(units: Units, cores: int) -> tuple[str, str, str, str, str, str]:
    """The row of the corpus."""
    megabytes, parts = CORPUS_BYTES / 1e6, -(-CORPUS_BYTES // PART_BYTES)
    seconds, adding = units.count_s_per_mb * megabytes, units.add_s_per_part * parts
    return (
        f"count {CORPUS_BYTES / 1e12:g} TB",
        f"read {CORPUS_BYTES / 1e12:g} TB, send {parts * VOCABULARY * 8 / 1e9:,.0f} GB of counts",
        f"{units.count_mb / 1000:.1f} GB a core", duration(seconds), duration(max(seconds / cores, adding)),
        f"{units.count_s_per_mb:.3f} s/MB × {megabytes:,.0f} MB / {cores:,} cores; {parts:,} parts × "
        f"{units.add_s_per_part * 1e3:.1f} ms to add = {duration(adding)}",
    )  # fmt: skip


def plan_pruning(units: Units, machines: int, cores: int) -> list[tuple[str, str, str, str, str, str]]:
    """The rows of weight pruning: one worker a machine, with all its cores."""
    blocks = sum(size(shape) for name, shape in shapes().items() if ".layers." in name and len(shape) > 1)
    spread = min(machines, PROMPTS)
    products = 2 * 2 * blocks * PROMPTS * TOKENS / 1e9
    plain, half = products / units.product_gflops, products / units.product_gflops_bf16
    block_gb = blocks / LAYERS * 4 / 1e9
    states_gb = PROMPTS * TOKENS * HIDDEN * 4 / 1e9
    sums_gb = PROMPTS * LAYERS * (HIDDEN + QUERY + HIDDEN + WIDTH) * 4 / 1e9
    calibrating = (
        f"calibrate on {PROMPTS} × {TOKENS} tokens",
        f"read {spread * 2 * blocks * BYTES / 1e9:,.0f} GB, send {sums_gb:,.1f} GB of sums",
        f"{block_gb:,.1f} GB of weights and {states_gb / spread:,.2f} GB of states a machine",
        f"{duration(plain)}, in bfloat16 {duration(half)}",
        f"{duration(plain / (spread * cores))}, in bfloat16 {duration(half / (spread * cores))}",
        f"2 passes × 2 × {blocks / 1e9:,.0f} G weights × {PROMPTS * TOKENS:,} tokens / {units.product_gflops:,.0f} "
        f"({units.product_gflops_bf16:,.0f}) GFLOP/s / {spread * cores:,} cores; each machine reads each block before and "
        "after it is pruned",
    )  # fmt: skip
    seconds = duration(units.score_s_per_gw * blocks / 1e9)
    scoring = (
        "score and zero", f"read and write {2 * blocks * BYTES / 1e9:,.0f} GB", f"{block_gb:,.1f} GB", seconds,
        f"{seconds}, one machine, not spread",
        f"{units.score_s_per_gw:.1f} s × {blocks / 1e9:,.0f} G weights; the same core reads and writes them",
    )  # fmt: skip
    return [calibrating, scoring]


def report(units: Units, tokenizer: str, options: argparse.Namespace) -> str:
    """Everything as Markdown."""
    weights = sum(map(size, shapes().values()))
    rows = plan(units, options.machines, options.cores, options.disk_gb_s)
    lines = [
        "# A 400 B-parameter model and a 10 TB corpus", "",
        f"Units measured on {os.cpu_count()} shared cores ({platform.machine()}), Python {platform.python_version()}, "
        f"{date.today()}; load average {os.getloadavg()[0]:.1f}. Tokenizer of the count: {tokenizer}. Cluster: "
        f"{options.machines} machines of {options.cores} such cores, disks of {options.disk_gb_s:g} GB/s.", "",
        f"The model: {weights / 1e9:,.1f} B parameters, {LAYERS} layers, hidden {HIDDEN:,}, {VOCABULARY:,} tokens of which "
        f"{KEPT:,} stay, bfloat16, {SHARDS} shards.", "",
        "| unit | value |", "|---|---:|",
        *[f"| {name.replace('_', ' ')} | {value:,.4g} |" for name, value in asdict(units).items()], "",
        "| job | bytes moved | memory | one core, or the disk, of this machine | the cluster | arithmetic |",
        "|---|---|---|---|---|---|",
        *[f"| {' | '.join(row)} |" for row in rows], "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Measure, plan, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=32)
    parser.add_argument("--cores", type=int, default=16, help="of each machine")
    parser.add_argument(
        "--disk-gb-s", type=float, default=2.0, help="read or written a second by the disk of the slice"
    )
    parser.add_argument("--write", type=Path)
    parser.add_argument("--measure", choices=[*MEASURES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        found = MEASURES[options.measure](options.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps({**found, "peak_mb": peak}))
        return
    assets = Path(os.environ.get("LANGSLICE_ASSETS", Path(__file__).parents[1] / "../shared/assets")).resolve()
    text = report(*measure(assets), options)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
