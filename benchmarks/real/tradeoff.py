"""What smaller vocabularies cost gemma-3-270m and multilingual-e5-small in Korean and English, and what --max-loss picks.

    python benchmarks/real/tradeoff.py

`langslice tradeoff` on lines of NTREX-128; then the slice that --max-loss 0.01 picks for gemma is written, and its loss measured on
the same lines and on the Universal Declaration of Human Rights, which nothing was chosen by. Writes results/real/tradeoff.md, and
a plot for each model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from common import RESULTS, WORK, langslice, machine, models, ntrex, step, table, udhr, write_page

PAGE = "tradeoff"
LINES, PICKING, RIGHTS, LIMIT = 60, 30, 40, 0.01
MODELS = {
    "gemma-3-270m": ("96000,80000,64000,48000,32000", "both"),
    "multilingual-e5-small": ("48000,32000,24000,16000,12000", "frequency"),
}


def texts(name: str, lines: dict[str, list[str]]) -> dict[str, Path]:
    """Files of lines by language."""
    folder = WORK / PAGE / name
    folder.mkdir(parents=True, exist_ok=True)
    found = {language: folder / f"{language}.txt" for language in lines}
    for language, each in lines.items():
        found[language].write_text("\n".join(each) + "\n", encoding="utf-8")
    return found


def news() -> list[str]:
    """Options that measure losses on every tenth line of NTREX-128."""
    files = texts("news", {language: ntrex(language)[::10] for language in ("ko", "en")})
    return [word for language, path in files.items() for word in ("--loss-texts", f"{language}={path}")]


def ladder(model: str) -> dict[str, Any]:
    """The trade-off of a model, and what measuring it took."""
    sizes, order = MODELS[model]
    out = WORK / PAGE / f"{model}-found.json"
    taken = langslice(
        "tradeoff", models() / model, "-l", "ko,en", "--sizes", f"999999,{sizes}", "--drop-by", order, *news(),
        "--loss-lines", LINES, "-o", out, "--overwrite", "--quiet",
    )  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copy(out.with_suffix(".svg"), RESULTS / f"tradeoff-{model}.svg")
    return {"taken": taken, **json.loads(out.read_text()), "model": model, "text": "NTREX-128, every tenth line"}


def picked() -> dict[str, Any]:
    """The slice that --max-loss picks, written, and its loss on what it was chosen by and on other text."""
    from langslice.evaluation.loaded_model import load_model
    from langslice.tradeoffs.losses import line_items, losses
    from langslice.tradeoffs.texts import read_texts

    source, out = models() / "gemma-3-270m", WORK / PAGE / "picked"
    asked = ("-l", "ko,en", "--max-loss", LIMIT, *news(), "--loss-lines", PICKING, "--no-verify")
    taken = langslice("slice", source, *asked, "-o", out, "--overwrite", "--quiet")
    record = json.loads((out / "slice.json").read_text())
    lines = {
        "NTREX-128": read_texts([word for word in news() if "=" in word], (), PICKING).measured,
        "UDHR": {language: udhr(language)[:RIGHTS] for language in ("ko", "en")},
    }
    before, after = load_model(source), load_model(out)
    found = {
        name: {
            code: vars(loss)
            for code, loss in losses("causal", line_items(before, each), line_items(after, each)).items()
        }
        for name, each in lines.items()
    }
    notes = [note for note in record["plan"]["notes"] if note.startswith("--max-loss")]
    return {"taken": taken, "rows": len(record["new_to_old"]), "note": notes[0].partition(" (")[0], "loss": found}


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {model: step(PAGE, model, lambda model=model: ladder(model)) for model in MODELS}
    document["picked"] = step(PAGE, "picked", picked)
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def loss_text(loss: dict[str, float]) -> str:
    """`+0.0101 [+0.0080, +0.0131]`."""
    return f"{loss['value']:+.4f} [{loss['low']:+.4f}, {loss['high']:+.4f}]"


def choice(picked: dict[str, Any] | None) -> str:
    """The section about --max-loss; that it was not measured, where it was not."""
    if picked is None:
        return f"Not measured yet: what `--max-loss {LIMIT}` picks."
    rows = [
        [
            name,
            code,
            str(PICKING if name == "NTREX-128" else RIGHTS),
            f"{loss['before']:.4f}",
            f"{loss['after']:.4f}",
            loss_text(loss),
        ]
        for name, each in picked["loss"].items()
        for code, loss in each.items()
    ]
    return f"""## What `--max-loss {LIMIT}` picks for gemma-3-270m
{picked["rows"]:,} rows, found in {picked["taken"]["cpu_seconds"]:.0f} CPU seconds. The written slice, on the lines that it was
chosen by and on others:

{table(["text", "language", "n", "original", "slice", "difference"], rows, text_columns=2)}
What was predicted: {picked["note"]}."""


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    parts = []
    for model in MODELS:
        found = document[model]
        rows = [
            [
                rung["order"], f"{rung['rows']:,}", f"{rung['size_bytes'] / 1e6:.1f}", f"{rung['memory_bytes'] / 1e6:.0f}",
                *(f"{100 * (rung['growth'][code] - 1):+.1f}%" for code in found["lines"]),
                *(loss_text(rung["loss"][code]) for code in found["lines"]),
            ]
            for rung in found["rungs"]
        ]  # fmt: skip
        taken, before = found["taken"], found["before"]
        head = [
            "dropped by", "rows", "weights, MB", "in float32, MB", *(f"tokens, {code}" for code in found["lines"]),
            *(f"loss, {code}" for code in found["lines"]),
        ]  # fmt: skip
        said = (
            f"Loss in {found['measure']}, against {before['rows']:,} rows of {before['size_bytes'] / 1e6:.1f} MB; {LINES} lines of "
            f"each language. Measuring it took {taken['cpu_seconds']:.0f} CPU seconds and {taken['peak_mb']:,.0f} MB."
        )
        parts.append(f"## {model}\n{said}\n\n{table(head, rows)}\n![](tradeoff-{model}.svg)\n")
    return f"""# What a smaller vocabulary costs

`benchmarks/real/tradeoff.py`: `langslice tradeoff` for Korean and English, on every tenth line of NTREX-128. Nothing is written:
text is encoded anew, rows are gathered in memory. {document["machine"]}

{chr(10).join(parts)}
{choice(document["picked"])}
"""


if __name__ == "__main__":
    main()
