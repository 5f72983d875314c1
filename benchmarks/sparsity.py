"""Weight pruning against the core of the Wanda reference, and in little memory.

    python benchmarks/sparsity.py                 BLOOM-560M shapes, 16 prompts of 256 tokens, all ways in turn
    python benchmarks/sparsity.py --memory        Qwen3-8B shapes (16.4 GB of disk), a few short demonstrations

The other way is written here from the paper (arXiv 2306.11695): load the model in float32, catch what the first block
reads, then for each block count its inputs with hooks on every linear layer, sort every score matrix, and pass the prompts
again. Each way is a process of its own; CPU seconds and peak memory are those of the whole process, Python, torch and
transformers included. Writes results/sparsity.md or results/sparsity_memory.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
WORDS = 5000
SHARE = 0.3
ROADS = {"langslice": "float32", "langslice-bfloat16": "bfloat16"}


def make_bloom(folder: Path) -> None:
    """A random checkpoint of BLOOM-560M's shapes in float16, saved as the published one is."""
    import torch
    import transformers

    config = transformers.BloomConfig(vocab_size=250_880, hidden_size=1024, n_layer=24, n_head=16)
    torch.manual_seed(0)
    model = transformers.BloomForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    model.to(torch.float16).save_pretrained(folder)
    make_tokenizer(folder)


def make_tokenizer(folder: Path) -> None:
    """A tokenizer of numbered words, so that demonstrations have as many tokens as words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def make_prompts(path: Path, count: int, tokens: int) -> None:
    """Demonstrations of random words."""
    import numpy as np

    rng = np.random.default_rng(0)
    lines = [
        json.dumps({"condition": "random", "text": " ".join(f"w{word}" for word in rng.integers(0, WORDS, tokens))})
        for _ in range(count)
    ]
    path.write_text("\n".join(lines))


def run_langslice(folder: Path, prompts: Path, compute: str = "float32") -> None:
    """The way of this package: prune a folder in place."""
    from langslice.sparsity import SparsityRequest, sparsify

    done = sparsify(folder, SparsityRequest(SHARE, keep_demos=(prompts,), compute=compute))
    print_result(done.zeros, done.size)


def run_reference(folder: Path, prompts: Path) -> None:
    """The reference's way: everything in memory, in float32."""
    import torch
    import transformers

    model = transformers.BloomForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    texts = [json.loads(line)["text"] for line in prompts.read_text().splitlines()]
    ids = torch.tensor([[int(word[1:]) for word in text.split()] for text in texts])
    blocks = model.transformer.h
    inputs = torch.zeros((*ids.shape, model.config.hidden_size))
    outputs = torch.zeros_like(inputs)
    caught: dict = {}

    def catch(module, args, kwargs):
        inputs[caught["number"]] = args[0][0]
        caught["args"], caught["kwargs"] = args[1:], kwargs
        raise StopIteration

    handle = blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
    with torch.no_grad():
        for number in range(len(ids)):
            caught["number"] = number
            with contextlib.suppress(StopIteration):
                model(ids[number : number + 1], use_cache=False)
        handle.remove()
        zeros = size = 0
        for block in blocks:
            linears = [module for module in block.modules() if isinstance(module, torch.nn.Linear)]
            means = {id(linear): torch.zeros(linear.weight.shape[1]) for linear in linears}
            seen = dict.fromkeys(means, 0)

            def note(module, given, _, means=means, seen=seen):
                flat = given[0].reshape(-1, given[0].shape[-1]).T.float()
                count = seen[id(module)] + 1
                means[id(module)] *= seen[id(module)] / count
                means[id(module)] += torch.norm(flat, p=2, dim=1) ** 2 / count
                seen[id(module)] = count

            handles = [linear.register_forward_hook(note) for linear in linears]
            for number in range(len(ids)):
                outputs[number] = first(block(inputs[number : number + 1], *caught["args"], **caught["kwargs"]))
            for one in handles:
                one.remove()
            for linear in linears:
                scores = linear.weight.abs() * means[id(linear)].sqrt().reshape(1, -1)
                mask = torch.zeros_like(scores, dtype=torch.bool)
                order = torch.sort(scores, dim=-1, stable=True)[1][:, : int(scores.shape[1] * SHARE)]
                mask.scatter_(1, order, True)
                linear.weight[mask] = 0
                zeros, size = zeros + int(mask.sum()), size + mask.numel()
            for number in range(len(ids)):
                outputs[number] = first(block(inputs[number : number + 1], *caught["args"], **caught["kwargs"]))
            inputs, outputs = outputs, inputs
    model.to(torch.float16).save_pretrained(folder.with_name("reference-out"))
    print_result(zeros, size)


def print_result(zeros: int, size: int) -> None:
    """Tell the parent, with the peak of this process."""
    # Not ru_maxrss, which begins with the peak of the process that this one was forked from.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"zeros": zeros, "size": size, "peak_mb": peak}))


def first(output):
    """The hidden states of what a block returns."""
    return output[0] if isinstance(output, tuple) else output


def measure(road: str, folder: Path, prompts: Path, threads: int) -> dict:
    """Run one way in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    command = [sys.executable, __file__, "--road", road, "--folder", str(folder), "--prompts", str(prompts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"road": road, "seconds": seconds, "cpu_s": cpu, **result}


def agreement(left: Path, right: Path) -> tuple[float, float]:
    """Share of pruned positions on which two results agree, in the first block and overall."""
    from langslice.model.checkpoint import open_checkpoint
    from langslice.sparsity.weight_bytes import read_tensor

    one, other = open_checkpoint(left).tensors, open_checkpoint(right).tensors
    names = [name for name, entry in one.items() if ".h." in name and len(entry.shape) == 2]
    same = {
        name: float(((read_tensor(one[name]) == 0) == (read_tensor(other[name]) == 0)).float().mean()) for name in names
    }
    head = [value for name, value in same.items() if ".h.0." in name]
    return statistics.mean(head), statistics.mean(same.values())


def compare(rounds: int, threads: int) -> None:
    """All ways in turn."""
    work = Path(tempfile.mkdtemp(prefix="langslice-bench-"))
    try:
        make_bloom(work / "source")
        make_prompts(work / "prompts.jsonl", 16, 256)
        rows = []
        for _ in range(rounds):
            for road in ("reference", *ROADS):
                shutil.rmtree(work / road, ignore_errors=True)
                shutil.copytree(work / "source", work / road)
                rows.append(measure(road, work / road, work / "prompts.jsonl", threads))
                print(rows[-1], flush=True)
        same = {road: agreement(work / road, work / "reference-out") for road in ROADS}
    finally:
        shutil.rmtree(work)
    theirs = [row for row in rows if row["road"] == "reference"]
    ratios = []
    for road in ROADS:
        pairs = list(zip([row for row in rows if row["road"] == road], theirs, strict=True))
        cpu, memory = (statistics.median(one[key] / other[key] for one, other in pairs) for key in ("cpu_s", "peak_mb"))
        ratios.append(
            f"- {road}: {cpu:.2f} of the reference's CPU time, {memory:.2f} of its memory (medians over rounds); the same "
            f"positions pruned or kept in {same[road][0]:.4%} of the first block and {same[road][1]:.3%} of all"
        )
    lines = [
        "# Weight pruning against the core of the Wanda reference\n",
        f"BLOOM-560M shapes (random, float16 on disk), 16 prompts of 256 tokens, sparsity {SHARE}; {threads} thread(s). "
        f"{machine()}. Whole processes: start, loading, pruning, writing. Roads in turn; the reference is this script's own "
        "reimplementation of its core, in float32.\n",
        "| way | wall s | CPU s | peak MB | zeros |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {row['road']} | {row['seconds']:.1f} | {row['cpu_s']:.1f} | {row['peak_mb']:.0f} | {row['zeros']:,} |"
            for row in rows
        ),
        "\n" + "\n".join(ratios),
        "\nThe products alone: 39 passes through a block's linear layers here, 48 there, of 0.103 TFLOP each. Here they are "
        "taken by oneDNN from weights that were laid out for it, there by torch as it is installed.",
        "\nPasses through the blocks dominate both ways: two for each in the reference; here the last linear layer of a block is "
        "not run while its inputs are counted, nor the last block when it is pruned. Rounding differs between the ways, and its "
        'effect on what is pruned grows with depth. `bfloat16` (`compute="bfloat16"`) takes matrix products alone in that type.',
    ]
    (HERE / "results/sparsity.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def memory(gigabytes: float, threads: int) -> None:
    """Prune a model of Qwen3-8B's shapes on few short demonstrations."""
    import numpy as np
    import torch
    from make_checkpoint import NOISE_BYTES, make_checkpoint

    work = Path(tempfile.mkdtemp(prefix="langslice-bench-"))
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, NOISE_BYTES // 2).astype(np.float32))
    try:
        make_checkpoint(work / "model", gigabytes, noise=noise.bfloat16().view(torch.uint8).numpy().tobytes())
        make_tokenizer(work / "model")
        make_prompts(work / "prompts.jsonl", 4, 64)
        size = sum(file.stat().st_size for file in (work / "model").glob("*.safetensors"))
        row = measure("langslice", work / "model", work / "prompts.jsonl", threads)
    finally:
        shutil.rmtree(work)
    text = (
        f"# Weight pruning in little memory\n\nQwen3-8B shapes ({size / 1e9:.1f} GB of bfloat16, random), 4 demonstrations of "
        f"64 tokens, Wanda at {SHARE}, in place; {threads} thread(s); {machine()}.\n\n"
        f"| wall s | CPU s | peak MB | weights zeroed |\n|---:|---:|---:|---:|\n"
        f"| {row['seconds']:.0f} | {row['cpu_s']:.0f} | {row['peak_mb']:.0f} | {row['zeros']:,} of {row['size']:,} |\n"
    )
    (HERE / "results/sparsity_memory.md").write_text(text)
    print(text)


def machine() -> str:
    """What it ran on."""
    import torch
    import transformers

    return (
        f"{os.cpu_count()} shared cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--gigabytes", type=float, default=16)
    parser.add_argument("--road", choices=("reference", *ROADS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--prompts", type=Path)
    arguments = parser.parse_args()
    if arguments.road:
        if arguments.road == "reference":
            run_reference(arguments.folder, arguments.prompts)
        else:
            run_langslice(arguments.folder, arguments.prompts, ROADS[arguments.road])
    elif arguments.memory:
        memory(arguments.gigabytes, arguments.threads)
    else:
        compare(arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
