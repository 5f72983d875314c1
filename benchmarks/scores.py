"""Are the lowest-scored heads, neurons and layers the ones to remove? Against the same number at random.

    python benchmarks/scores.py [ASSETS] [--seeds 3]

Scores are measured on one half of the text, the slice on the other half, by silencing the heads and neurons and skipping the
layers that were chosen. langslice-mini: loss of a token on the packaged held-out sentences, all eight languages. MiniLM
(where the assets are at hand): distance of its sentence embeddings to those of the whole model, 1 - cosine, on English
news. Every seed draws its own sample to score on, and its own random choice. Results: benchmarks/results/scores.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langslice.scoring import Scores

HERE = Path(__file__).parent
# (kind, methods, shares of heads or neurons, or numbers of layers)
CUTS = (
    ("heads", ("l1", "l2", "gradient", "gates", "lahis"), (0.25, 0.5)),
    ("neurons", ("l1", "l2", "activation", "taylor"), (0.2, 0.4)),
    ("layers", ("block-influence", "angular", "perplexity"), (1, 2)),
)
KEEP = ("ko", "en")
STEPS = 80
MEMORY = (("heads", "l2"), ("neurons", "l2"), ("layers", "block-influence"), ("neurons", "activation"))


class Subject:
    """A model, the text that it is scored on, and the text that a slice is measured on."""

    def __init__(self, folder: Path, score_on: Mapping[str, Sequence[str]], measure_on: Mapping[str, Sequence[str]]):
        from langslice.model.anatomy import read_anatomy
        from langslice.model.checkpoint import open_checkpoint
        from langslice.scoring.batches import make_batches
        from langslice.scoring.model_runs import open_running

        self.checkpoint = open_checkpoint(folder)
        self.anatomy = read_anatomy(self.checkpoint)
        self.score_on = score_on
        self.known: dict[tuple[str, str, int, int], Scores] = {}
        self.running = open_running(self.checkpoint, self.anatomy, whole=True)
        self.batches = {
            name: make_batches(self.running.reader, lines, 0, predict=True) for name, lines in measure_on.items()
        }
        self.references = {name: self.running.references(batches) for name, batches in self.batches.items()}

    def loss(self, hooks: Sequence = (), languages: Sequence[str] | None = None) -> float:
        """Mean over languages of the loss while hooks are in place."""
        from langslice.scoring.model_runs import hooked

        with hooked(hooks):
            return mean(
                self.running.mean_loss(self.batches[name], self.references[name]) for name in languages or self.batches
            )

    def hooks(self, kind: str, dropped) -> list:
        """Hooks that make a slice of one kind."""
        from langslice.scoring.model_runs import silencing, skipping_layers

        if kind == "layers":
            return skipping_layers(self.running.sites, {"layers": dropped})
        return silencing(self.running.sites, self.running.anatomy, **{kind: dropped})

    def scores(self, kind: str, method: str, seed: int, run: int = 1):
        """Scores by one seed."""
        from langslice.scoring import ScoreSettings, compute

        if (kind, method, seed, run) in self.known:
            return self.known[kind, method, seed, run]
        pooled = [line for lines in self.score_on.values() for line in lines]
        texts = self.score_on if method in ("lahis", "lape") else {"": pooled}
        samples = 96 if method != "perplexity" else 32
        settings = ScoreSettings(seeds=(seed,), samples=samples if len(texts) == 1 else 24, run=run, steps=STEPS)
        scores = compute(self.checkpoint, kind, method, texts, settings=settings)
        self.known[kind, method, seed, run] = scores
        return scores


def chosen(subject: Subject, kind: str, method: str, size: float, seed: int):
    """What a method would remove."""
    from langslice.scoring.selection import heads_to_drop, layers_to_drop, neurons_to_drop

    scores = subject.scores(kind, method, seed, run=int(size) if method == "angular" else 1)
    if kind == "layers":
        return layers_to_drop(scores, subject.anatomy, int(size))
    return (heads_to_drop if kind == "heads" else neurons_to_drop)(scores, subject.anatomy, size)


def anywhere(subject: Subject, kind: str, size: float, seed: int):
    """The same number at random, whatever the layer; at least one of a layer stays."""
    rng = random.Random(seed)
    if kind == "layers":
        return tuple(sorted(rng.sample(range(subject.anatomy.layers["layers"]), int(size))))
    table = subject.anatomy.heads if kind == "heads" else subject.anatomy.neurons
    counts = {
        (place, layer): one.query if kind == "heads" else one
        for place, layers in table.items()
        for layer, one in layers.items()
    }
    units = [(key, at) for key, count in counts.items() for at in range(count)]
    dropped: dict[str, dict[int, list[int]]] = {}
    budget = int(size * len(units) + 1e-9)
    for (place, layer), at in rng.sample(units, len(units)):
        gone = dropped.setdefault(place, {}).setdefault(layer, [])
        if budget and len(gone) + 1 < counts[place, layer]:
            gone.append(at)
            budget -= 1
    return dropped


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{mean(values):.4f}"


def cut_rows(subject: Subject, seeds: Sequence[int]) -> list[str]:
    """One table row for each kind, method and size."""
    from langslice.scoring.selection import random_control

    whole = subject.loss()
    rows = []
    for kind, methods, sizes in CUTS:
        for size in sizes:
            what = (
                f"{size:.3g} of {kind}" if kind != "layers" else f"{size} of {subject.anatomy.layers['layers']} layers"
            )
            free = [subject.loss(subject.hooks(kind, anywhere(subject, kind, size, seed))) - whole for seed in seeds]
            rows.append(f"| {what} | **random, anywhere** | {spread(free)} | | |")
            for method in methods:
                if method == "lahis" and len(subject.score_on) < 2:
                    continue
                own, same = [], []
                for seed in seeds:
                    if seed == seeds[0] or method not in ("l1", "l2"):
                        dropped = chosen(subject, kind, method, size, seed)
                        own.append(subject.loss(subject.hooks(kind, dropped)) - whole)
                    if kind != "layers":
                        control = random_control(dropped, subject.anatomy, seed)
                        same.append(subject.loss(subject.hooks(kind, control)) - whole)
                share = f"{mean(own) / mean(free):.2f}" if mean(free) > 0 else ""
                rows.append(f"| {what} | {method} | {spread(own)} | {share} | {spread(same) if same else ''} |")
                print(rows[-1], flush=True)
    return rows


def language_rows(subject: Subject, seeds: Sequence[int]) -> list[str]:
    """Heads and neurons that serve only other languages, removed; and as many at random in the same layers."""
    from langslice.scoring.selection import language_heads_to_drop, language_neurons_to_drop, random_control

    others = [language for language in subject.batches if language not in KEEP]
    whole = {group: subject.loss(languages=group) for group in (KEEP, tuple(others))}
    choices: dict[str, tuple[str, str, Callable]] = {
        "neurons, lape (lowest 1% of entropy)": ("neurons", "lape", language_neurons_to_drop),
        "neurons, lape (lowest 5%)": (
            "neurons", "lape", lambda *given: language_neurons_to_drop(*given, share=0.05)),
        "heads, lahis": ("heads", "lahis", language_heads_to_drop),
    }  # fmt: skip
    rows = []
    for name, (kind, method, choose) in choices.items():
        measured: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        numbers = []
        for seed in seeds:
            dropped = choose(subject.scores(kind, method, seed), subject.anatomy, KEEP)
            numbers.append(sum(len(gone) for layers in dropped.values() for gone in layers.values()))
            control = random_control(dropped, subject.anatomy, seed)
            for label, cut in (("chosen", dropped), ("random", control)):
                for group, base in whole.items():
                    loss = subject.loss(subject.hooks(kind, cut), group) - base
                    measured.setdefault((label, group), []).append(loss)
        cells = " | ".join(spread(measured[label, group]) for group in whole for label in ("chosen", "random"))
        rows.append(f"| {name} | {mean(numbers):.1f} | {cells} |")
        print(rows[-1], flush=True)
    return rows


def memory_rows() -> list[str]:
    """Peak memory of scoring a random Llama of 0.42 B parameters in float16, each method in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([sys.executable, __file__, "--make", work], capture_output=True, text=True, check=True)
        for kind, method in MEMORY:
            command = [sys.executable, __file__, "--measure", work, kind, method]
            found = json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            )
            rows.append(f"| {kind}, {method} | {found['peak_mb']:,.0f} | {found['cpu_seconds']:.1f} |")
            print(rows[-1], flush=True)
        stored = sum(path.stat().st_size for path in Path(work).glob("*.safetensors"))
    return [f"\nThe weights take {stored / 1e6:,.0f} MB as they are stored, and {2 * stored / 1e6:,.0f} MB in float32.\n",
            "| scored | MB above the libraries | CPU seconds |", "|---|--:|--:|", *rows]  # fmt: skip


def make_large(folder: Path) -> None:
    """Save the random model, with the packaged tokenizer."""
    import torch
    import transformers

    from langslice.mini import mini_model_path

    config = transformers.LlamaConfig(
        vocab_size=12288, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        num_key_value_heads=16, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    torch.set_default_dtype(torch.float16)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(mini_model_path() / name, folder / name)


def measure(folder: Path, kind: str, method: str) -> None:
    """Print peak memory above that of the libraries, and CPU seconds, of one method."""
    from transformers.models.llama import modeling_llama  # noqa: F401 - counted with the libraries

    import langslice.scoring.forward
    import langslice.scoring.gradients  # noqa: F401
    from langslice.mini import heldout_text
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring import ScoreSettings, compute
    from langslice.tokenizer import open_tokenizer

    open_tokenizer(folder, rows=12288).encode(["warm"])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing (proc(5))
    before, started = _memory("VmRSS"), time.process_time()
    lines = {"": heldout_text("ko")[:32]}
    compute(open_checkpoint(folder), kind, method, lines, settings=ScoreSettings(seeds=(0,), samples=16, max_tokens=48))
    found = {"peak_mb": (_memory("VmHWM") - before) / 1e6, "cpu_seconds": time.process_time() - started}
    print(json.dumps(found))


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def mini() -> Subject:
    """The packaged model and the halves of its held-out text."""
    from langslice.mini import heldout_languages, heldout_text, mini_model_path

    texts = {language: [line for line in heldout_text(language) if line.strip()] for language in heldout_languages()}
    return Subject(
        mini_model_path(),
        {language: lines[::2] for language, lines in texts.items()},
        {language: lines[1::2][::12] for language, lines in texts.items()},
    )


def minilm(assets: Path) -> Subject:
    """A trained sentence encoder and English news."""
    lines = (assets / "data/ntrex128/newstest2019-src.eng.txt").read_text(encoding="utf-8").splitlines()
    return Subject(assets / "weights/all-MiniLM-L6-v2", {"en": lines[:1000]}, {"en": lines[1000::20]})


def main() -> None:
    """Measure and write the tables."""
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("LANGSLICE_ASSETS", str(HERE.parent / "../shared/assets"))
    parser.add_argument("assets", nargs="?", type=Path, default=Path(default))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make_large(given.make)
        return
    if given.measure:
        measure(Path(given.measure[0]), *given.measure[1:])
        return
    seeds = list(range(given.seeds))
    started = time.monotonic()
    head = "| removed | chosen by | loss over the whole model | over random, anywhere | as many at random in the same layers |"
    rule = "|---|---|--:|--:|--:|"
    packaged = mini()
    sections = [
        f"## langslice-mini\n\nNats a token on held-out sentences; the whole model has {packaged.loss():.4f}.\n",
        "\n".join([head, rule, *cut_rows(packaged, seeds)]),
        "\n## Language-specific parts of langslice-mini\n\nWhat serves only other languages is removed, to keep "
        f"{' and '.join(KEEP)}: rise of the loss, chosen by score and as many at random in the same layers.\n",
        "| removed | number | kept languages, chosen | kept, random | other languages, chosen | others, random |",
        "|---|--:|--:|--:|--:|--:|",
        *language_rows(packaged, seeds),
    ]
    if (given.assets / "weights/all-MiniLM-L6-v2").is_dir():
        sections += [
            "\n## MiniLM\n\nDistance of sentence embeddings to those of the whole model, 1 - cosine. Its gradients are those "
            "of the embedding along random directions, for it has no language model head.\n",
            "\n".join([head, rule, *cut_rows(minilm(given.assets), seeds)]),
        ]
    else:
        print(f"MiniLM: left out, {given.assets} has no weights/all-MiniLM-L6-v2")
    sections += [
        "\n## Memory\n\nA random Llama of 0.42 B parameters, stored in float16; 16 lines of at most 48 tokens, each method in a "
        "process of its own.",
        *memory_rows(),
    ]
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {date.today()}; {time.monotonic() - started:.0f} s."
    )
    text = (
        "# Scores\n\nThe lowest-scored heads, neurons and layers are removed, and the loss on text that the scores did not see is "
        f"compared with removing as many at random. Mean ± standard deviation over {len(seeds)} seeds, each with its own sample "
        "of the text and its own random choice; l1 and l2 read no text and have one value. Heads are compared over all layers "
        "after scaling within each, as `langslice` chooses them.\n\n" + "\n".join(sections) + f"\n\n{machine}\n"
    )
    (HERE / "results/scores.md").write_text(text, encoding="utf-8")
    print(f"wrote {HERE / 'results/scores.md'} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
