"""Neurons and heads that serve only other languages: do they, in trained models?

    python benchmarks/real/language_parts.py [MODEL ...]

Six languages are scored (LAPE of neurons, LAHIS of heads), Korean and English are kept. What serves only the others is left out of
multilingual-e5-small and gemma-3-270m, and the loss is measured on other lines in Korean, English and French; next to it as many
parts of the same layers at random. Writes results/real/language_parts.md.
"""

from __future__ import annotations

import sys
from functools import cache, partial
from typing import Any

import numpy as np
from common import ONLY_KEPT, SEED, machine, ntrex, step, table, write_page
from scores import opened

PAGE = "language_parts"
MODELS = ("multilingual-e5-small", "gemma-3-270m")
KEPT, OTHERS = ("ko", "en"), ("fr", "de", "ja", "ru")
MEASURED = ("ko", "en", "fr")
SAMPLES, LINES, CONTROLS = 12, 12, (0, 1, 2, 3)
CUTS = {
    "LAPE neurons, lowest 1% of entropy": ("neurons", 0.01),
    "LAPE neurons, lowest 5%": ("neurons", 0.05),
    "LAHIS heads": ("heads", None),
}


@cache
def scores_of(model: str, kind: str) -> Any:
    """Scores by language."""
    from langslice.scoring import ScoreSettings, compute

    lines = {code: ntrex(code)[1 : 1 + 20 * 2 * SAMPLES : 20] for code in (*KEPT, *OTHERS)}
    settings = ScoreSettings(seeds=(SEED,), samples=SAMPLES)
    return compute(
        opened(model).checkpoint, kind, {"neurons": "lape", "heads": "lahis"}[kind], lines, settings=settings
    )


def chosen(model: str, cut: str) -> dict[str, Any]:
    """What serves only the other languages."""
    from langslice.scoring.selection import language_heads_to_drop, language_neurons_to_drop

    kind, share = CUTS[cut]
    scores, anatomy = scores_of(model, kind), opened(model).anatomy
    if kind == "heads":
        return language_heads_to_drop(scores, anatomy, KEPT)
    return language_neurons_to_drop(scores, anatomy, KEPT, share=share)


@cache
def measured_text(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Lines to measure on, and what the whole model gives for them."""
    return opened(model).laid_out({code: ntrex(code)[650 : 650 + 50 * LINES : 50] for code in MEASURED})


def losses(model: str, **gone: Any) -> dict[str, Any]:
    """Language -> lines' losses without some heads or neurons."""
    this, (batches, references) = opened(model), measured_text(model)
    return this.measure(batches, references, this.without(**gone))


def removed(model: str, cut: str) -> dict[str, Any]:
    """Losses without what was chosen, and without as many at random."""
    from langslice.scoring.selection import random_control

    gone = chosen(model, cut)
    kind = CUTS[cut][0]
    number = sum(len(parts) for layers in gone.values() for parts in layers.values())
    found: dict[str, Any] = {"number": number, "random": []}
    if not number:
        return found
    found["chosen"] = losses(model, **{kind: gone})
    for seed in CONTROLS:
        found["random"].append(losses(model, **{kind: random_control(gone, opened(model).anatomy, seed)}))
    return found


def measured(model: str, only_kept: bool) -> dict[str, Any]:
    """Every step of a model."""
    make = partial(step, PAGE, only_kept=only_kept)
    found = {"whole": make(f"{model}-whole", lambda: losses(model))}
    for number, cut in enumerate(CUTS):
        found[cut] = make(f"{model}-{number}", partial(removed, model, cut))
    return found


def main() -> None:
    """Measure, and write the page of all that was ever measured."""
    for model in [name for name in sys.argv[1:] if name in MODELS] or MODELS:
        measured(model, ONLY_KEPT)
    document: dict[str, Any] = {model: found for model in MODELS if (found := measured(model, True))["whole"]}
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def change(before: Any, after: Any) -> str:
    """A rise of the loss, with its interval."""
    from langslice.evaluation.statistics import difference

    found = difference("ratio", np.array(before), np.array(after))
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    rows, left = [], []
    for model in MODELS:
        found = document.get(model) or {}
        for cut in CUTS:
            one = found.get(cut)
            if not one or not one["number"]:
                left.append(f"{model}, {cut}: " + ("nothing serves only other languages" if one else "not measured"))
                continue
            for code in MEASURED:
                random = np.mean([np.array(each[code]) for each in one["random"]], axis=0)
                rows.append([
                    model, cut, code, "kept" if code in KEPT else "not kept", str(one["number"]),
                    change(found["whole"][code], one["chosen"][code]), change(found["whole"][code], random),
                    change(random, one["chosen"][code]),
                ])  # fmt: skip
    head = ["model", "left out", "text", "", "parts", "rise, chosen", "rise, random", "chosen - random"]
    return f"""# Neurons and heads of other languages

`benchmarks/real/language_parts.py`: {", ".join((*KEPT, *OTHERS))} are scored on {SAMPLES} lines of NTREX-128 each; what serves only
{", ".join(OTHERS)} is left out. Measured on {LINES} other lines of each language: nats a token, for e5 1 - cosine to the whole
model's embeddings. Random: the mean of {len(CONTROLS)} draws of as many parts of the same layers.
Intervals are over lines, not over draws.
{document["machine"]}

{table(head, rows, text_columns=4)}
{("Without a row: " + "; ".join(left) + ".") if left else ""}
"""


if __name__ == "__main__":
    main()
