"""Tokens that gemma-3-270m learns for languages that it spells in many: fertility, and bits per byte before and after a training.

    python benchmarks/real/extend.py

NTREX-128 in Swahili and Tamil: tokens are chosen and rows trained on lines 1 to 1,000, and measured on every sixteenth of the
others. The vocabulary is cut to English and that text, and extended by 500 tokens in the same plan, whose rows are means of their
pieces' rows, or of the rows of tokens that the text uses alike; beside it the same cut without new tokens. All are trained on the
same text for as long. Writes results/real/extend.md.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, data, machine, models, sliced, step, table, write_page

PAGE, MODEL, NEW, TRAIN = "extend", "gemma-3-270m", 500, 1000
LANGUAGES = {"sw": ("Swahili", "swa"), "ta": ("Tamil", "tam")}
HEALING = {
    "steps": 30, "batch_size": 8, "seq_length": 64, "dtype": "bfloat16", "device": "cpu", "heldout": 0.01,
    "learning_rate": 5e-5, "overwrite": True,
}  # fmt: skip


def lines(language: str) -> tuple[Path, list[str]]:
    """A file of the lines that are learned from, and those that are measured."""
    every = (
        (data() / "ntrex128" / f"newstest2019-ref.{LANGUAGES[language][1]}.txt")
        .read_text(encoding="utf-8-sig")
        .splitlines()
    )
    path = WORK / PAGE / f"{language}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(every[:TRAIN]) + "\n", encoding="utf-8")
    return path, every[TRAIN::16]


# What is measured -> the folder of the slice, and whether it has new tokens and of which rows.
WAYS = {
    "cut": ("cut", ""),
    "cut and extended": ("extended", "pieces"),
    "cut and extended, similar rows": ("similar", "similar"),
}


def made(language: str, way: str) -> Path:
    """A verified slice."""
    text, _ = lines(language)
    name, rows = WAYS[way]
    new = ("--extend-corpus", text, "--extend-to", f"+{NEW}", "--extend-rows", rows) if rows else ()
    return sliced(PAGE, f"{language}-{name}", MODEL, "-l", "en", "--corpus", text, *new)[0]


def measured(folder: Path, language: str) -> dict[str, Any]:
    """Tokens, tokens a word, and bits a byte of the lines that nothing was learned from; bits and bytes of each line."""
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.perplexity import measure_perplexity
    from langslice.tokenizer import open_tokenizer

    _, held_out = lines(language)
    tokens = sum(len(ids) for ids in open_tokenizer(folder).encode(held_out))
    found = next(
        one for one in measure_perplexity(load_model(folder), language, held_out) if one.metric == "bits per byte"
    )
    return {
        "rows": json.loads((folder / "config.json").read_text())["vocab_size"], "tokens": tokens,
        "a_word": tokens / sum(len(line.split()) for line in held_out), "bits": found.value, "items": found.items.tolist(),
    }  # fmt: skip


def healed(folder: Path, language: str) -> dict[str, Any]:
    """Train a slice on the text; what that took, and what is measured then."""
    from langslice import heal

    out = folder.with_name(f"{folder.name}-healed")
    started = time.process_time()
    heal(folder, out, corpus=[str(lines(language)[0])], seed=0, **HEALING)
    return {"cpu_seconds": time.process_time() - started, **measured(out, language)}


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {"machine": machine(), "languages": {}}
    for language in LANGUAGES:
        whole = models() / MODEL
        found = {
            "original": step(
                PAGE, f"{language}-original", lambda language=language, whole=whole: measured(whole, language)
            )
        }
        for way in WAYS:
            key = f"{language}-{way.replace(',', '').replace(' ', '-')}"
            found[way] = step(PAGE, key, lambda way=way, language=language: measured(made(language, way), language))
            found[f"{way}, trained"] = step(
                PAGE, f"{key}-trained", lambda way=way, language=language: healed(made(language, way), language)
            )
        document["languages"][language] = found
    write_page(PAGE, document, page(document))


def verdict(found: dict[str, Any]) -> str:
    """What new tokens save and cost after the training."""
    without, with_them = found["cut, trained"], found["cut and extended, trained"]
    if not (without and with_them):
        return "Not measured yet: both trained.\n"
    saved, cost = 1 - with_them["tokens"] / without["tokens"], with_them["bits"] - without["bits"]
    said = f"New tokens save {saved:.1%} of the tokens; trained alike, a byte takes {cost:+.4f} bits with them.\n"
    return said + "".join(alike(found, after) for after in ("", ", trained"))


def alike(found: dict[str, Any], after: str) -> str:
    """What rows of tokens that are used alike change, next to the mean of the pieces."""
    pieces, similar = (found[f"cut and extended{rows}{after}"] for rows in ("", ", similar rows"))
    if not (pieces and similar):
        return ""
    from langslice.evaluation.statistics import difference

    bounds = ""
    if pieces.get("items") and similar.get("items"):
        apart = difference("ratio", np.array(pieces["items"]), np.array(similar["items"]))
        bounds = f" [{apart.low:+.4f}, {apart.high:+.4f}]"
    when = "After the training" if after else "Before any training"
    cost = similar["bits"] - pieces["bits"]
    return f"\n{when}, a byte takes {cost:+.4f}{bounds} bits more with rows of tokens used alike than with means of pieces.\n"


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    parts = []
    for language, found in document["languages"].items():
        rows = [
            [name, f"{one['rows']:,}", f"{one['tokens']:,}", f"{one['a_word']:.3f}", f"{one['bits']:.4f}",
             f"{one['cpu_seconds']:.0f}" if "cpu_seconds" in one else "–"]
            for name, one in found.items()
            if one
        ]  # fmt: skip
        head = ["what", "rows", "tokens", "tokens a word", "bits a byte", "training, CPU s"]
        parts.append(f"## {LANGUAGES[language][0]}\n{table(head, rows)}\n{verdict(found)}")
    return f"""# New tokens for languages that a model spells in many

`benchmarks/real/extend.py`: {MODEL}, cut to English and to {TRAIN:,} lines of NTREX-128 in the language, and extended by {NEW}
tokens that were learned on these lines; measured on every sixteenth of the other lines. Training: {HEALING["steps"]} steps of
{HEALING["batch_size"]} × {HEALING["seq_length"]} tokens of the same lines, no teacher. {document["machine"]}

{chr(10).join(parts)}
"""


if __name__ == "__main__":
    main()
