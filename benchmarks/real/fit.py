"""Models cut to a budget over all axes, against each axis alone; what was predicted, and what was measured.

    python benchmarks/real/fit.py

`langslice fit` for Korean and English: multilingual-e5-small to 100 MB and 60 MB, gemma-3-270m to 250 MB and 150 MB. What a
combination loses is measured on lines of NTREX-128; the slices are then evaluated on what nothing was chosen by: KorSTS and
retrieval (e5), the Universal Declaration of Human Rights (gemma). Writes results/real/fit.md, and a plot for each budget.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from common import (
    ONLY_KEPT,
    RESULTS,
    WORK,
    data,
    evaluated,
    langslice,
    machine,
    models,
    ntrex,
    score_row,
    step,
    table,
    udhr,
    write_page,
)

PAGE, ITEMS, RIGHTS = "fit", 400, 30
E5, GEMMA = "multilingual-e5-small", "gemma-3-270m"
# Model -> budgets, lines of each language that losses are measured on, combinations that are measured.
MODELS: dict[str, tuple[tuple[str, ...], int, int]] = {
    E5: (("100MB", "60MB"), 24, 10),
    GEMMA: (("250MB", "150MB"), 10, 8),
}
ALONE = ("vocabulary", "layers", "neurons")
STEPS = 100


def texts() -> list[str]:
    """Options that measure losses on every tenth line of NTREX-128."""
    folder = WORK / PAGE / "news"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for language in ("ko", "en"):
        path = folder / f"{language}.txt"
        path.write_text("\n".join(ntrex(language)[::10]) + "\n", encoding="utf-8")
        found += ["--loss-texts", f"{language}={path}"]
    return found


def folder_of(model: str, size: str) -> Path:
    """Folder of a fit."""
    return WORK / PAGE / f"{model}-{size}"


def fitted(model: str, size: str) -> dict[str, Any] | None:
    """A fit: everything that was measured, what was chosen, and what measuring took."""
    _, lines, checks = MODELS[model]
    out = folder_of(model, size)

    def make() -> dict[str, Any]:
        taken = langslice(
            "fit", models() / model, "-l", "ko,en", "--size", size, *texts(), "--loss-lines", lines, "--checks", checks,
            "--measured", WORK / PAGE / f"{model}-points", "-o", out, "--overwrite", "--quiet",
        )  # fmt: skip
        # By its name: where it lies is this machine's own.
        return {"taken": taken, **json.loads((out / "fit.json").read_text()), "model": model}

    kept = json.dumps(step(PAGE, f"{model}-{size}", make), ensure_ascii=False)
    # Where the text lay is this machine's own, too.
    found: dict[str, Any] | None = json.loads(re.sub(r"/[^ =,\"]*/news/", "news/", kept))
    if found is not None and not ONLY_KEPT:
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(out / "fit.svg", RESULTS / f"fit-{model}-{size}.svg")
    return found


def e5_scores(name: str, out: Path) -> list[dict[str, Any]] | None:
    """KorSTS and Korean-English retrieval of a folder, next to the original."""
    found = evaluated(
        PAGE, f"{name}-scores", models() / E5, out, "--tasks", "sts,bitext", "-l", "ko", "--pairs", "ko-en", "--data", data(),
        "-n", ITEMS,
    )  # fmt: skip
    return found and [score for score in found if score["metric"] != "pearson" and score["task"] != "size"]


def healed_folder(size: str) -> Path:
    """Folder of a slice of e5 after training."""
    return WORK / PAGE / f"healed-{size}"


def healed(size: str) -> dict[str, float] | None:
    """A short training of a slice of e5 towards its original, on other lines than those of any measurement."""
    text = WORK / PAGE / "healing.txt"

    def make() -> dict[str, float]:
        pairs = (data() / "kornlu" / "xnli.dev.ko.tsv").read_text(encoding="utf-8").splitlines()[1:]
        lines = dict.fromkeys(line.split("\t")[0] for line in pairs)
        text.write_text("\n".join([*lines, *udhr("en")]) + "\n", encoding="utf-8")
        return langslice(
            "heal", folder_of(E5, size) / "slice", "--teacher", models() / E5, "--corpus", text, "--steps", STEPS,
            "--seq-length", 64, "-o", healed_folder(size), "--overwrite", "--quiet",
        )  # fmt: skip

    found: dict[str, float] | None = step(PAGE, f"healing-{size}", make)
    return found


def rights(model: str, size: str) -> dict[str, dict[str, float]] | None:
    """Bits per byte of the original and of the written slice, on text that nothing was chosen by."""

    def make() -> dict[str, Any]:
        from langslice.evaluation.loaded_model import load_model
        from langslice.tradeoffs.losses import line_items, losses

        lines = {language: udhr(language)[:RIGHTS] for language in ("ko", "en")}
        folders = (models() / model, folder_of(model, size) / "slice")
        before, after = (line_items(load_model(folder), lines) for folder in folders)
        return {code: vars(loss) for code, loss in losses("causal", before, after).items()}

    found: dict[str, dict[str, float]] | None = step(PAGE, f"{model}-{size}-rights", make)
    return found


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {}
    for model, (sizes, _, _) in MODELS.items():
        for size in sizes:
            one: dict[str, Any] = {"fit": fitted(model, size)}
            if one["fit"] is not None and model == E5:
                one["scores"] = e5_scores(f"{model}-{size}", folder_of(model, size) / "slice")
                one["healing"] = healed(size)
                one["healed"] = one["healing"] and e5_scores(f"healed-{size}", healed_folder(size))
            elif one["fit"] is not None:
                one["rights"] = rights(model, size)
            document.setdefault(model, {})[size] = one
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def worst(loss: dict[str, Any]) -> str:
    """`+0.0422 [+0.0345, +0.0534] (en)`: of the language that loses most."""
    code, most = max(loss.items(), key=lambda each: each[1]["value"])
    return f"{most['value']:+.4f} [{most['low']:+.4f}, {most['high']:+.4f}] ({code})"


def axes_of(point: dict[str, Any], full: int) -> list[str]:
    """What a point cuts."""
    cut = point["cut"]
    return [
        *(["vocabulary"] if cut["rows"] < full else []),
        *(axis for axis in ("layers", "heads", "neurons", "experts", "hidden") if cut.get(axis)),
    ]


def correlation(fits: list[dict[str, Any]]) -> tuple[str, int]:
    """Rank correlation of predicted and measured loss of combinations of two axes or more, and how many there are."""
    import numpy as np

    from langslice.evaluation.statistics import STATISTICS, interval

    points: dict[str, list[float]] = {}
    for fit in fits:
        full = max(point["cut"]["rows"] for point in fit["points"])
        for point in fit["tried"]:
            if len(axes_of(point, full)) > 1:
                measured = max(one["value"] for one in point["loss"].values())
                points[json.dumps(point["cut"])] = [max(point["predicted"].values()), measured]
    items = np.array(list(points.values()))
    if len(items) < 3:
        return "–", len(items)
    bounds = interval("spearman", items)
    return f"{float(STATISTICS['spearman'](items[None])[0]):+.3f} [{bounds.low:+.3f}, {bounds.high:+.3f}]", len(items)


def best_of(fit: dict[str, Any], axis: str) -> list[str]:
    """The best that one axis alone gives within the budget."""
    full = max(point["cut"]["rows"] for point in fit["points"])
    limit = fit["limits"]["size"]
    alone = [
        point
        for point in fit["points"]
        if axes_of(point, full) == [axis] and point["takes"]["size"] <= limit and point["loss"]
    ]
    if not alone:
        return [f"{axis} alone", "does not reach the budget", "–", "–"]
    return chosen_row(
        f"{axis} alone", min(alone, key=lambda point: max(one["value"] for one in point["loss"].values()))
    )


def chosen_row(name: str, point: dict[str, Any]) -> list[str]:
    """A cut, what it takes and what it loses."""
    return [name, point["text"], f"{point['takes']['size'] / 1e6:.1f}", worst(point["loss"])]


def afterwards(found: dict[str, Any]) -> str:
    """What the slice is worth on text that nothing was chosen by."""
    if found.get("scores"):
        return f"\nThe slice, on what nothing was chosen by:\n\n{scores_table(found['scores'], 'slice')}{healing_text(found)}"
    if found.get("rights"):
        rows = [
            [code, f"{loss['before']:.4f}", f"{loss['after']:.4f}", worst({code: loss})]
            for code, loss in found["rights"].items()
        ]
        head = ["language", "original", "slice", "difference"]
        return f"\nBits per byte on {RIGHTS} paragraphs of the Universal Declaration of Human Rights:\n\n{table(head, rows)}"
    return "\nNot measured yet: the slice on other text.\n"


def scores_table(scores: list[dict[str, Any]], name: str) -> str:
    """Scores of the original and of another, by task."""
    rows = [[score["task"], score["language"], score["metric"], *score_row(score)] for score in scores]
    return table(["task", "language", "metric", "n", "original", name, "difference"], rows, text_columns=3)


def section(model: str, size: str, every: dict[str, Any]) -> str:
    """What was cut to reach a budget, what each axis alone loses there, and what the slice is worth."""
    found = every["fit"]
    if found is None:
        return f"## {model}, {size}\nNot measured yet.\n"
    rows = [chosen_row("all axes", found["chosen"]), *(best_of(found, axis) for axis in ALONE)]
    tried = [
        [point["text"], f"{max(point['predicted'].values()):+.4f}", worst(point["loss"])] for point in found["tried"]
    ]
    lines = ", ".join(f"{count} {code}" for code, count in found["lines"].items())
    peak = f", {found['taken']['peak_mb']:,.0f} MB at most" if "peak_mb" in found["taken"] else ""
    return f"""## {model}, {size}
From {found["before"]["size"] / 1e6:.1f} MB and {found["before"]["rows"]:,} rows. Loss is {found["measure"]}, of the language
that loses most, on lines: {lines}. {len(found["points"])} points in all; {found["taken"]["cpu_seconds"]:.0f} CPU seconds for those
that were not known from another run{peak}.

{table(["cut", "what", "MB", "loss"], rows, text_columns=2)}
What was measured within the budget, in the order in which they were tried:

{table(["combination", "predicted", "measured"], tried)}{afterwards(every)}
![](fit-{model}-{size}.svg)
"""


def healing_text(one: dict[str, Any]) -> str:
    """What a slice of e5 is worth after training; that it was not measured, where it was not."""
    if not one.get("healed"):
        return "\nNot measured yet: the slice after training.\n"
    return f"""
After {STEPS} steps of 8 sentences (premises of XNLI's Korean development set, and the Declaration in English) towards the
original's embeddings, {one["healing"]["cpu_seconds"]:.0f} CPU seconds:

{scores_table(one["healed"], "healed")}"""


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    parts, ranks = [], []
    for model, (sizes, _, _) in MODELS.items():
        parts += [section(model, size, document[model][size]) for size in sizes]
        said, count = correlation([document[model][size]["fit"] for size in sizes if document[model][size]["fit"]])
        ranks.append([model, str(count), said])
    return f"""# A budget over all axes

`benchmarks/real/fit.py`: `langslice fit` for Korean and English, losses on every tenth line of NTREX-128. {document["machine"]}

{chr(10).join(parts)}
## Predicted and measured
Combinations of two axes or more. A prediction adds what each axis loses alone. Those that were tried are those that promised most
at their budget, so that they are more alike than any.

{table(["model", "combinations", "Spearman [95%]"], ranks)}"""


if __name__ == "__main__":
    main()
