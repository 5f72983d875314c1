"""Hidden size as one more axis of a budget: what it costs alone, whether the search takes it, and what the best with it lose.

    python benchmarks/real/hidden_axis.py

What `langslice fit` measures with every axis, hidden dimensions among them, at budgets of fit.py. The search measures what promises
most; the combinations with fewer hidden dimensions that promise most are then measured as well, whether it chose them or not, so
that both can be held against each other at equal size. Writes results/real/hidden_axis.md.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import Any

from common import WORK, machine, models, step, table, write_page
from fit import E5, GEMMA, MODELS, axes_of, texts, worst

PAGE, AXES, BESIDE = "hidden_axis", "vocabulary,layers,heads,neurons,experts,hidden", 4
BUDGETS = {E5: "100MB", GEMMA: "250MB"}


def searched(model: str, size: str) -> dict[str, Any] | None:
    """What `fit` measures with hidden dimensions among the axes, and the best with fewer of them; no slice is written."""
    folder = WORK / PAGE / f"{model}-points"

    def make() -> dict[str, Any]:
        from langslice.budgets.costs import measure_costs
        from langslice.budgets.limits import read_limits
        from langslice.budgets.main import Search
        from langslice.budgets.options import FitOptions
        from langslice.budgets.part_scores import scored
        from langslice.budgets.parts import find_parts
        from langslice.budgets.points import Points
        from langslice.budgets.search import candidates, point_of
        from langslice.model.checkpoint import open_checkpoint
        from langslice.planning.source import settled
        from langslice.progress import silent
        from langslice.tradeoffs.main import open_ladder

        _, lines, checks = MODELS[model]
        options = FitOptions(
            size=size, languages="ko,en", loss_texts=texts()[1::2], loss_lines=lines, axes=AXES, checks=checks
        )
        limits, choice = read_limits(options), options.choice()
        source = settled(open_checkpoint(models() / model), choice, needs_tokenizer=True)
        started = time.process_time()
        with open_ladder(source, choice, silent) as ladder:
            parts = find_parts(source, ladder.plan(None).tensors, options.searched())
            with closing(Points(ladder, parts, folder)) as points:
                search = Search(points, limits, options, silent)
                points.parts = scored(points, silent)
                costs = measure_costs(points, search.enough, cut_rows=search.cuts_rows)
                tried = search.tries(costs, choice)
                found = candidates(costs, search.needs, limits, least=search.least, multiple=None)
                narrow = [point for point in found if point.cut.hidden][:BESIDE]
                beside = [replace(point, loss=points.losses(point.cut)) for point in narrow]
                every = [point_of(costs, search.needs, one) for one in costs.all()]
        return {
            "cpu_seconds": time.process_time() - started,
            "chosen": search.best(tried).to_json(), "points": [point.to_json() for point in every],
            "tried": [point.to_json() for point in tried], "beside": [point.to_json() for point in beside],
        }  # fmt: skip

    found: dict[str, Any] | None = step(PAGE, f"{model}-{size}", make)
    return found


def main() -> None:
    """Measure, and write the page."""
    document: dict[str, Any] = {model: {"size": size, "fit": searched(model, size)} for model, size in BUDGETS.items()}
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
    best = {
        (axes_of(point, full)[0], -round(point["takes"]["size"], -4)): point for point in sorted(alone, key=lost)[::-1]
    }
    by_axis = [best[key] for key in sorted(best)]
    single = [row(axes_of(point, full)[0], point) for point in by_axis if lost(point) < 2 * found_worst(found)]
    beside = f", and the {BESIDE} with fewer hidden dimensions that promised most" if found["beside"] else ""
    ways = {point["text"]: point for point in (*found["tried"], *found["beside"])}.values()
    rows = [
        row("hidden" if point["cut"].get("hidden") else "", point)
        for point in sorted(ways, key=lost)
        if len(axes_of(point, full)) > 1
    ]
    return f"""## {model}, {one["size"]}
Loss is {"1 - cosine to the original" if model == E5 else "bits per byte"}, of the language that loses most. The search chose:
{found["chosen"]["text"]}.

Each axis alone, the whole choice of tokens kept, the best at each size:

{table(["axis", "cut", "MB", "loss"], [[*each[:3], each[4]] for each in single], text_columns=2)}
Combinations within the budget, best first: those that the search tried{beside}:

{table(["", "combination", "MB", "predicted", "measured"], rows, text_columns=2)}
{verdict(list(ways))}"""


def verdict(ways: list[dict[str, Any]]) -> str:
    """The best with fewer hidden dimensions, against the best without."""
    best = {
        narrow: min((one for one in ways if bool(one["cut"].get("hidden")) == narrow), key=lost, default=None)
        for narrow in (False, True)
    }
    if not (best[True] and best[False]):
        return "No combination with fewer hidden dimensions promised enough to be tried; none was measured beside.\n"
    wins = "lose less" if lost(best[True]) < lost(best[False]) else "do not win"
    return (
        f"At equal size, fewer hidden dimensions {wins}: {worst(best[True]['loss'])} with them, "
        f"{worst(best[False]['loss'])} without.\n"
    )


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
