"""Cut heads, neurons and layers of a 0.43 B-parameter Llama: langslice next to Torch-Pruning and mergekit.

    python benchmarks/structure.py --work FOLDER --peers FOLDER [--rounds 3] [--results FILE]

--peers is a folder made by `pip install --no-deps --target FOLDER torch-pruning==1.6.1 mergekit==0.1.5`; a peer that cannot
be imported is left out and named. Every run is a process of its own, methods take turns; CPU seconds are user and system of
the process and its children, memory is its peak resident size. All read the same checkpoint (float32, random weights) and
write a complete folder; langslice does not verify here, as the others do not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HIDDEN, NEURONS, LAYERS, HEADS, KV_HEADS, VOCABULARY = 1024, 3584, 24, 16, 4, 32_000
HEAD_SHARE, NEURON_SHARE = 0.5, 0.25  # transformers asks for a number of heads that divides the hidden size
DROPPED_LAYERS = (8, 9, 10, 11)


def make_source(folder: Path) -> None:
    """Save a random Llama with a byte-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=NEURONS, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HIDDEN // HEADS, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*alphabet, *(f"<{n}>" for n in range(VOCABULARY - 256))])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def torch_pruning(source: Path, out: Path) -> None:
    """Heads and neurons by L2 magnitude; the residual stream keeps its width."""
    import torch
    import torch_pruning as tp
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype="float32", attn_implementation="eager"
    ).eval()
    model.config.use_cache = False
    heads, ignored = {}, [model.lm_head, model.model.embed_tokens]
    for layer in model.model.layers:
        attention = layer.self_attn
        heads.update({attention.q_proj: HEADS, attention.k_proj: KV_HEADS, attention.v_proj: KV_HEADS})
        ignored += [attention.o_proj, layer.mlp.down_proj]
    pruner = tp.pruner.BasePruner(
        model, example_inputs=torch.arange(16)[None], importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=NEURON_SHARE, ignored_layers=ignored, num_heads=heads, prune_num_heads=True, prune_head_dims=False,
        head_pruning_ratio=HEAD_SHARE, output_transform=lambda found: found.logits.sum(),
    )  # fmt: skip
    pruner.step()
    config = model.config
    config.num_attention_heads = model.model.layers[0].self_attn.q_proj.out_features // (HIDDEN // HEADS)
    config.num_key_value_heads = model.model.layers[0].self_attn.k_proj.out_features // (HIDDEN // HEADS)
    config.intermediate_size = model.model.layers[0].mlp.up_proj.out_features
    model.save_pretrained(out)
    print(config.num_attention_heads, config.num_key_value_heads, config.intermediate_size, file=sys.stderr)


def mergekit(source: Path, out: Path) -> None:
    """Layers, by passthrough."""
    first, last = DROPPED_LAYERS[0], DROPPED_LAYERS[-1] + 1
    recipe = {
        "merge_method": "passthrough",
        "dtype": "float32",
        "slices": [
            {"sources": [{"model": str(source), "layer_range": [0, first]}]},
            {"sources": [{"model": str(source), "layer_range": [last, LAYERS]}]},
        ],
    }
    path = out.with_suffix(".yml")
    path.write_text(json.dumps(recipe))
    sys.argv = ["mergekit-yaml", str(path), str(out), "--no-copy-tokenizer", "--lazy-unpickle"]
    from mergekit.scripts.run_yaml import main

    main()


def langslice_cut(source: Path, out: Path, cut: list[str]) -> None:
    """The command."""
    sys.argv = ["langslice", "slice", str(source), *cut, "--no-verify", "-q", "-o", str(out)]
    from langslice.cli.app import main

    main()


METHODS = {
    "heads and neurons": ("langslice", "torch_pruning"),
    "layers": ("langslice", "mergekit"),
}
CUTS = {
    "heads and neurons": ["--heads-sparsity", str(HEAD_SHARE), "--neurons-sparsity", str(NEURON_SHARE), "--uniform",
                          "--heads-by", "l2", "--neurons-by", "l2"],
    "layers": ["--drop-layers", f"{DROPPED_LAYERS[0]}-{DROPPED_LAYERS[-1]}"],
}  # fmt: skip


def measure(arguments: list[str], peers: Path) -> dict[str, float]:
    """One process: wall and CPU seconds, peak memory in MB."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{peers}"}
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, __file__, "--child", *arguments], env=environment, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"failed with {child.returncode}: {arguments}")
    return {
        "wall": time.perf_counter() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 1000,
    }


def run_child(arguments: list[str]) -> None:
    """What a measured process does."""
    task, method, source, out = arguments
    if task == "source":
        make_source(Path(source))
    elif method == "langslice":
        langslice_cut(Path(source), Path(out), CUTS[task])
    else:
        globals()[method](Path(source), Path(out))


def main() -> None:
    """Measure all tasks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_child(given.child)
        return
    given.work.mkdir(parents=True, exist_ok=True)
    source = given.work / "source"
    if not source.exists():  # in a process of its own: a child's peak begins at its parent's
        subprocess.run([sys.executable, __file__, "--child", "source", "", str(source), ""], check=True)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    failed: dict[str, str] = {}
    for _ in range(given.rounds):
        for task, methods in METHODS.items():
            for method in methods:
                out = given.work / "out"
                shutil.rmtree(out, ignore_errors=True)
                try:
                    figures = measure([task, method, str(source), str(out)], given.peers)
                except RuntimeError as error:
                    failed[method] = str(error)
                    continue
                print(task, method, {name: round(value, 1) for name, value in figures.items()}, flush=True)
                found.setdefault((task, method), []).append(figures)
    text = report(found, failed, given.rounds)
    print(text)
    if given.results:
        given.results.write_text(text, encoding="utf-8")


def report(found: dict[tuple[str, str], list[dict[str, float]]], failed: dict[str, str], rounds: int) -> str:
    """The table, and what was left out."""
    from importlib.metadata import version

    def median(task: str, method: str, name: str) -> float:
        return statistics.median(run[name] for run in found[task, method])

    parameters = VOCABULARY * HIDDEN * 2 + LAYERS * (2 * HIDDEN * (HIDDEN + KV_HEADS * 64) + 3 * HIDDEN * NEURONS)
    lines = [
        "# Cutting heads, neurons and layers",
        "",
        f"`benchmarks/structure.py`: a Llama of {parameters / 1e9:.2f} B parameters (float32, random, {LAYERS} layers), "
        f"{rounds} rounds in turns, medians; {os.cpu_count()} cores ({platform.machine()}) shared with other work, "
        f"Python {platform.python_version()}, torch {version('torch')}, transformers {version('transformers')}, "
        f"{time.strftime('%Y-%m-%d')}. "
        "Heads and neurons: half and a quarter of them by L2 norm, the same number in every layer. Layers: four of them. "
        "Starting the process, choosing and writing are part of every figure; nothing is verified.",
        "",
        "| cut | tool | wall, s | CPU, s | peak memory, MB | CPU against the peer | memory against the peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, (own, peer) in METHODS.items():
        for method in (own, peer):
            if (task, method) not in found:
                continue
            row = [median(task, method, name) for name in ("wall", "cpu", "memory")]
            ratios = ["", ""]
            if method == own and (task, peer) in found:
                ratios = [f"{median(task, own, name) / median(task, peer, name):.2f}" for name in ("cpu", "memory")]
            lines.append(
                f"| {task} | {method} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.0f} | {ratios[0]} | {ratios[1]} |"
            )
    lines += [f"\n{method} was left out: {why}" for method, why in failed.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
