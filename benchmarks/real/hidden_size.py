"""What fewer hidden dimensions cost gemma-3-270m, multilingual-e5-small and the packaged model, next to other axes.

    python benchmarks/real/hidden_size.py

Every slice keeps the same vocabulary (-l ko,en), so that what differs is the axis. gemma: bits per byte on NTREX-128. e5: KorSTS
and
retrieval of translations. Writes results/real/hidden_size.md.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from common import WORK, data, evaluated, machine, models, ntrex, score_row, sliced, table, write_page

PAGE = "hidden_size"
MEASURED: dict[str, tuple[str, ...]] = {
    "gemma-3-270m": ("--tasks", "perplexity", "-l", "ko,en", "-n", "40"),
    "packaged model, untied": ("--tasks", "perplexity", "-l", "ko,en", "-n", "100"),
    "multilingual-e5-small": ("--tasks", "bitext,sts", "-l", "ko", "--pairs", "ko-en", "-n", "200"),
}
METRICS = ("bits per byte", "accuracy", "spearman")
CUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "gemma-3-270m": {
        "vocabulary alone": (),
        "576 of 640 dimensions, activation": ("--hidden-size", "576", "TEXT"),
        "576 of 640 dimensions, l2": ("--hidden-size", "576"),
        "512 of 640 dimensions, activation": ("--hidden-size", "512", "TEXT"),
        "2 of 18 layers, block influence": ("--drop-layers-by", "block-influence:2", "TEXT"),
        "30% of neurons, taylor": ("--neurons-sparsity", "0.3", "--uniform", "TEXT"),
    },
    "packaged model, untied": {
        f"{number} of 192 dimensions, {by}": ("--hidden-size", str(number), "--hidden-by", by, *(() if by == "l2" else ("TEXT",)))
        for number in (176, 160, 144)
        for by in ("activation", "l2", "rotation")
    },
    "multilingual-e5-small": {
        "vocabulary alone": (),
        "352 of 384 dimensions and 11 of 12 heads, activation": (
            "--hidden-size", "352", "--heads-sparsity", "0.0834", "--uniform", "TEXT"),
        "320 of 384 dimensions and 10 of 12 heads, activation": (
            "--hidden-size", "320", "--heads-sparsity", "0.1667", "--uniform", "TEXT"),
        "320 of 384 dimensions and 10 of 12 heads, l2": (
            "--hidden-size", "320", "--heads-sparsity", "0.1667", "--uniform"),
        "2 of 12 layers, block influence": ("--drop-layers-by", "block-influence:2", "TEXT"),
    },
}  # fmt: skip


def calibration() -> list[str]:
    """Options that name lines of NTREX-128 which nothing is measured on."""
    found = []
    for language in ("ko", "en"):
        path = WORK / PAGE / f"{language}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ntrex(language)[1500:1900]) + "\n", encoding="utf-8")
        found += ["--calibration", f"{language}={path}"]
    return found


def untied() -> Path:
    """The packaged model with a head of its own: the same numbers in a table that a rotation can turn by itself."""
    from safetensors.torch import load_file, save_file

    from langslice.mini import mini_model_path

    out = WORK / PAGE / "untied"
    shutil.copytree(mini_model_path(), out, dirs_exist_ok=True)
    tensors = load_file(mini_model_path() / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = {**json.loads((out / "config.json").read_text()), "tie_word_embeddings": False}
    (out / "config.json").write_text(json.dumps(config))
    return out


def measured(model: str) -> list[dict[str, Any]]:
    """Each cut: size, verification, and what it gives."""
    text, found = calibration(), []
    place = models() / model if (models() / model).is_dir() else untied()
    name = model.partition(" ")[0]
    for number, (what, options) in enumerate(CUTS[model].items()):
        words = [word for option in options for word in (text if option == "TEXT" else [option])]
        out, made = sliced(PAGE, f"{name}-{number}", str(place), "-l", "ko,en", *words)
        rows = evaluated(PAGE, f"{name}-{number}", place, out, "--data", data(), *MEASURED[model])
        found.append({"what": what, "made": made, "rows": [row for row in rows if row["metric"] in METRICS]})
    return found


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {model: measured(model) for model in CUTS}
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    rows = [
        [
            model, one["what"], f"{one['made']['after']['parameters'] / 1e6:.1f}", "yes" if one["made"]["verified"] else "no",
            f"{row['task']}, {row['language']}, {row['metric']}", *score_row(row)[1:],
        ]
        for model in CUTS
        for one in document[model]
        for row in one["rows"]
    ]  # fmt: skip
    head = ["model", "cut", "M parameters", "verified", "measured", "original", "slice", "difference"]
    return f"""# Fewer hidden dimensions

`benchmarks/real/hidden_size.py`: the same vocabulary (`-l ko,en`), and one axis more, without training. What goes is
chosen on 400 lines of NTREX-128 in each language, and measured on others. {document["machine"]}

{table(head, rows, text_columns=2)}
gemma and e5 cannot be rotated before the cut: gemma has a weight for each dimension behind every part of a layer, e5 layer norms.
The packaged model (Llama, 6 layers) can, with a head of its own: a second table of the same numbers. Rotated first, it loses half
of what it loses by the best single dimensions. In gemma, fewer layers or neurons cost less than as much taken from the hidden
size; in e5, 32 dimensions and a head of each layer cost no more than two layers, which take as many parameters.
"""


if __name__ == "__main__":
    main()
