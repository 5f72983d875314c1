"""Hidden size as one more axis of a budget: what it costs alone, whether the search takes it, and what the best with it lose.

    python benchmarks/real/hidden_axis.py

`langslice fit` with every axis, hidden dimensions among them, at budgets of fit.py. The search measures what promises most; the
combinations with fewer hidden dimensions that promise most are then measured as well, whether it chose them or not, so that both
can be held against each other at equal size. Writes results/real/hidden_axis.md.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from typing import Any

from common import WORK, langslice, machine, models, step, table, write_page
from fit import E5, GEMMA, MODELS, axes_of, texts, worst

PAGE, AXES, BESIDE = "hidden_axis", "vocabulary,layers,heads,neurons,experts,hidden", 4
BUDGETS = {E5: "100MB", GEMMA: "250MB"}


def fitted(model: str, size: str) -> dict[str, Any] | None:
    """A fit over all axes, hidden dimensions among them."""
    _, lines, checks = MODELS[model]
    out = WORK / PAGE / f"{model}-{size}"

    def make() -> dict[str, Any]:
        out.parent.mkdir(parents=True, exist_ok=True)
        taken = langslice(
            "fit", models() / model, "-l", "ko,en", "--size", size, *texts(), "--loss-lines", lines, "--checks", checks,
            "--axes", AXES, "--measured", WORK / PAGE / f"{model}-points", "-o", out, "--overwrite", "--quiet",
        )  # fmt: skip
        return {"taken": taken, **json.loads((out / "fit.json").read_text()), "model": model}

    found: dict[str, Any] | None = json.loads(
        re.sub(r"/[^ =,\"]*/news/", "news/", json.dumps(step(PAGE, f"{model}-{size}", make), ensure_ascii=False))
    )
    return found


def beside(model: str, size: str) -> list[dict[str, Any]] | None:
    """The combinations with fewer hidden dimensions that promise most within the budget, measured."""

    def make() -> list[dict[str, Any]]:
        from langslice.budgets.costs import measure_costs
        from langslice.budgets.limits import SIZE, read_limits, taken
        from langslice.budgets.options import FitOptions
        from langslice.budgets.part_scores import scored
        from langslice.budgets.parts import find_parts
        from langslice.budgets.points import Points
        from langslice.budgets.search import candidates
        from langslice.model.checkpoint import open_checkpoint
        from langslice.planning.source import settled
        from langslice.progress import silent
        from langslice.tradeoffs.main import open_ladder

        options = FitOptions(
            size=size, languages="ko,en", loss_texts=texts()[1::2], loss_lines=MODELS[model][1], axes=AXES
        )
        limits, choice = read_limits(options), options.choice()
        source = settled(open_checkpoint(models() / model), choice, needs_tokenizer=True)
        with open_ladder(source, choice, silent) as ladder:
            parts = find_parts(source, ladder.plan(None).tensors, options.searched())
            with closing(Points(ladder, parts, WORK / PAGE / f"{model}-points")) as points:
                points.parts = scored(points, silent)
                needs = lru_cache(maxsize=None)(points.parts.needs)
                costs = measure_costs(
                    points, lambda cut: taken(needs(cut), cut.rows)[SIZE] <= limits[SIZE], cut_rows=True
                )
                least = ladder.least + points.beyond
                found = candidates(costs, needs, limits, least=least, multiple=None)
                best = [point for point in found if point.cut.hidden][:BESIDE]
                return [replace(point, loss=points.losses(point.cut)).to_json() for point in best]

    found: list[dict[str, Any]] | None = step(PAGE, f"{model}-{size}-beside", make)
    return found


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {
        model: {"size": size, "fit": fitted(model, size), "beside": beside(model, size)}
        for model, size in BUDGETS.items()
    }
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def lost(point: dict[str, Any]) -> float:
    """The loss of the language that loses most."""
    return max(one["value"] for one in point["loss"].values())


def row(name: str, point: dict[str, Any]) -> list[str]:
    """A cut, what it takes, what was predicted and what it loses."""
    predicted = f"{max(point['predicted'].values()):+.4f}"
    return [name, point["text"], f"{point['takes']['size'] / 1e6:.1f}", predicted, worst(point["loss"])]


def section(model: str, one: dict[str, Any]) -> str:
    """What the axis costs alone, what was chosen, and the best with fewer hidden dimensions."""
    found = one["fit"]
    if found is None:
        return f"## {model}, {one['size']}\nNot measured yet.\n"
    full = max(point["cut"]["rows"] for point in found["points"])
    alone = [point for point in found["points"] if len(axes_of(point, full)) == 1 and point["cut"]["rows"] == full]
    by_axis = sorted(alone, key=lambda point: (axes_of(point, full)[0], -point["takes"]["size"]))
    single = [row(axes_of(point, full)[0], point) for point in by_axis if lost(point) < 2 * found_worst(found)]
    ways = {point["text"]: point for point in (*found["tried"], *(one["beside"] or []))}.values()
    rows = [
        row("hidden" if point["cut"].get("hidden") else "", point)
        for point in sorted(ways, key=lost)
        if len(axes_of(point, full)) > 1
    ]
    return f"""## {model}, {one["size"]}
Loss is {found["measure"]}, of the language that loses most. {found["taken"]["cpu_seconds"]:.0f} CPU seconds for
{len(found["points"])} points. Chosen: {found["chosen"]["text"]}.

Each axis alone, the whole choice of tokens kept, by bytes:

{table(["axis", "cut", "MB", "", "loss"], [[*each[:3], "", each[4]] for each in single], text_columns=2)}
Combinations within the budget, best first: those that the search tried, and the {BESIDE} with fewer hidden dimensions that
promised most:

{table(["", "combination", "MB", "predicted", "measured"], rows, text_columns=2)}
"""


def found_worst(found: dict[str, Any]) -> float:
    """What the chosen combination loses, or a tenth where that is less."""
    return max(lost(found["chosen"]), 0.1)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    return "\n".join(
        [
            f"""# Hidden size as an axis of a budget

`benchmarks/real/hidden_axis.py`: `langslice fit --axes {AXES}` for Korean and English, losses on
every tenth line of NTREX-128, as on [the page of all axes](fit.md). {document["machine"]}
""",
            *(section(model, document[model]) for model in BUDGETS),
        ]
    )


if __name__ == "__main__":
    main()
