"""The commands that are killed, with their inputs."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RECIPE = """\
model: {model}
slice: {{languages: en, drop_layers: 1-5}}
evaluate: {{tasks: perplexity, languages: en, limit: 4, resamples: 100}}
heal: {{corpus: {text}, steps: 6, batch_size: 2, seq_length: 32, save_every: 1}}
restore: true
report: true
"""


@dataclass(frozen=True)
class Case:
    """A command, without its output option.

    reads    folder that must stay as it is
    target   what it writes, below a folder of its own
    clock    entries of the target's JSON files that tell how the run went, and not what came of it
    went_on  what it prints when it goes on where a killed run stopped
    steps    whether the target is a work folder, in which finished steps may be before the end
    """

    name: str
    arguments: tuple[str, ...]
    reads: Path
    target: str = "out"
    clock: frozenset[str] = frozenset()
    went_on: str = "continued after"
    steps: bool = False


def make_cases(folder: Path, *, corpus_bytes: int, model: Path) -> list[Case]:
    """Commands on a small model, with their inputs written below `folder`."""
    from langslice.mini import heldout_languages, heldout_text

    french, english = heldout_text("fr"), heldout_text("en")
    shots = [f"French: {left}\nEnglish: {right}\n" for left, right in zip(french, english, strict=True)]
    demos = folder / "mt.jsonl"
    demos.write_text("".join(json.dumps({"text": "".join(shots[at : at + 4])}) + "\n" for at in range(0, 160, 4)))
    lines = [line for language in heldout_languages() for line in heldout_text(language)]
    words = sorted({word for line in lines for word in line.split()})
    generator = random.Random(0)
    corpus, size = folder / "corpus.txt", 0
    with corpus.open("w", encoding="utf-8") as file:
        while size < corpus_bytes:
            line = " ".join(generator.choices(words, k=12)) + "\n"
            size += len(line.encode())
            file.write(line)
    cut = ("slice", str(model), "-l", "ko,en")
    text = folder / "heal.txt"
    text.write_text("\n".join(english), encoding="utf-8")
    return [
        Case("slice: vocabulary", cut, model),
        Case("slice: vocabulary and structure", (*cut, "--drop-layers", "5", "--drop-heads", "0:0-1"), model),
        Case("slice: weights", ("slice", str(model), "--sparsity", "0.3", "--keep-demos", str(demos)), model),
        Case("count", ("count", str(model), "--corpus", str(corpus), "--processes", "2"), model, "out.parquet"),
        healing(folder, text, model),
        running(folder, text, model),
    ]


def healing(folder: Path, text: Path, model: Path) -> Case:
    """A short healing run of a slice with one layer, which keeps every fourth step.

    The slice is made in another process, since threads that it starts would be missing in the runs that are forked from this one.
    """
    cut = folder / "to-heal"
    program = [
        sys.executable,
        "-m",
        "langslice",
        "slice",
        str(model),
        "-l",
        "en",
        "--drop-layers",
        "1-5",
        "-o",
        str(cut),
    ]
    subprocess.run([*program, "--no-verify", "-q"], check=True)
    sizes = ("--steps", "40", "--batch-size", "2", "--seq-length", "32", "--save-every", "4")
    arguments = ("heal", str(cut), "--corpus", str(text), *sizes)
    return Case("heal", arguments, cut, clock=frozenset({"seconds", "resumed"}), went_on="taken up again at step")


def running(folder: Path, text: Path, model: Path) -> Case:
    """A recipe of every kind of step that writes a model, with measurements and a page."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=json.dumps(str(model)), text=json.dumps(str(text))), encoding="utf-8")
    clock = frozenset({"seconds", "resumed"})
    return Case("run", ("run", str(recipe)), model, "work", clock, went_on=" kept ", steps=True)
