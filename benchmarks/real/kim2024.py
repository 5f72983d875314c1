"""Kim et al. 2024 (arXiv 2409.16911) on gemma-3-270m: which weights translation needs, by demonstrations of translation.

    python benchmarks/real/kim2024.py

The conditions of `langslice reproduce kim2024`, pruned once and measured in steps that are kept; then further sparsities, seeds and
demonstrations. Writes results/real/kim2024.md, with each finding of the paper and whether it holds here.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    ONLY_KEPT,
    WORK,
    beside_chance,
    change_text,
    data,
    machine,
    models,
    paired_change,
    step,
    table,
    value_text,
    write_page,
)

PAGE, MODEL = "kim2024", "gemma-3-270m"
SPARSITY, PROMPTS = 0.3, 8
SOURCES = ("fr", "zh", "sw")
GROUPS: dict[str, dict[str, Any]] = {
    "loss": {"tasks": "translation_loss", "languages": ",".join(SOURCES), "limit": 16, "shots": 4},
    "plain": {"tasks": "perplexity", "languages": "en,fr,zh", "limit": 8},
    "choice": {"tasks": "xnli,xcopa,rankc:xcopa", "languages": "ko,zh,sw", "limit": 40},
    "translation": {"tasks": "translation", "languages": "fr", "limit": 24, "shots": 4, "new_tokens": 48},
}
# In this order, so that a run that is stopped has the most telling ones.
FIRST = ("unpruned", "mt fr-en", "mono en", "random", "magnitude", "code-refined", "mt zh-en", "mt es-en")
# Measured at further sparsities, with further seeds and with other demonstrations.
SPARSITIES, SEEDS = (0.5, 0.1, 0.2, 0.4, 0.6), (1, 2)
SWEPT = ("mt fr-en", "mono en", "random", "magnitude")
OTHER: dict[str, dict[str, Any]] = {
    "2 prompts": {"count": 2},
    "32 prompts": {"count": 32},
    "1 shot": {"shots": 1, "count": 4 * PROMPTS},
    "English first": {"languages": "en,fr"},
    "misaligned": {"misaligned": True},
}


def folder() -> Path:
    """The data folder that `reproduce` gathers, with the lines for demonstrations apart."""
    from langslice.reproduction.data_folder import gather_data

    return gather_data(WORK / PAGE / "data", {}, data(), packaged=False)


def conditions() -> dict[str, Any]:
    """Every condition as an entry of a recipe, in the order in which they are measured."""
    from langslice.reproduction.kim2024 import make_conditions

    where = folder()
    made, _ = make_conditions(where, None, sparsities=(SPARSITY,), prompts=PROMPTS)
    found: dict[str, Any] = {str(name): entry for name, entry in made.items()}
    more, _ = make_conditions(where, None, sparsities=SPARSITIES, prompts=PROMPTS)
    further = {str(name): entry for name, entry in more.items() if name.kind in SWEPT}
    seeded, _ = make_conditions(where, None, sparsities=(SPARSITY,), seeds=SEEDS, prompts=PROMPTS)
    drawn = {str(name): entry for name, entry in seeded.items() if name.kind in ("mt fr-en", "mono en", "random")}
    keep = next(entry["keep"] for name, entry in found.items() if name.startswith("mt fr-en"))
    other = {
        f"mt fr-en, {name}": {"sparsity": 0.5, "keep": misaligned({**keep, **change})} for name, change in OTHER.items()
    }
    return {**found, **further, **drawn, **other}


def misaligned(keep: dict[str, Any]) -> dict[str, Any]:
    """Demonstrations of sentences that do not belong together: each source with the next line's translation."""
    if not keep.pop("misaligned", False):
        return keep
    place = WORK / PAGE / "misaligned"
    (place / "parallel").mkdir(parents=True, exist_ok=True)
    for code, shift in (("fr", 0), ("en", 1)):
        lines = (Path(keep["data"]) / "parallel" / f"{code}.txt").read_text().splitlines()
        (place / "parallel" / f"{code}.txt").write_text("\n".join([*lines[shift:], *lines[:shift]]) + "\n")
    return {**keep, "data": str(place)}


def pruned(name: str, entry: Any) -> Path:
    """The model of a condition, pruned now or kept from before."""
    from langslice.recipes.execution import sparsity_request
    from langslice.sparsity import prune_copy

    if entry is None:
        return models() / MODEL
    out = WORK / PAGE / "models" / name.replace(", ", "-").replace(" ", "-")
    if not (out / "config.json").is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        prune_copy(models() / MODEL, out, sparsity_request(entry, None), overwrite=True)
    return out


def measure(name: str, entry: Any, group: str) -> list[dict[str, Any]]:
    """Every item of a group of tasks."""
    from langslice.recipes.execution import measure as measured

    options = {"data": str(folder()), "available": True, "device": "cpu", "dtype": "float32", **GROUPS[group]}
    found: list[dict[str, Any]] = measured(pruned(name, entry), options)["measured"]
    return [one for one in found if one["task"] != "size"]


def main() -> None:
    """Measure, the most telling first, and write the page."""
    every = conditions()
    found: dict[str, list[Any]] = {name: [] for name in every}
    first = sorted(filter(at_main, every), key=lambda name: FIRST.index(name.split(" at ")[0]))
    asked = [(name, group) for group in GROUPS for name in first]
    extra = [(name, "loss") for name in every if not at_main(name)]
    # What says most comes first, for a run that is stopped: the main table, the paper's main claim, a higher sparsity.
    early = [*asked[: len(first)], *[(name, "choice") for name in first[:3]], *extra[:2]]
    for name, group in dict.fromkeys([*early, *asked, *extra]):
        kept = step(
            PAGE, f"{name.replace(', ', '-').replace(' ', '-')}-{group}", partial(measure, name, every[name], group)
        )
        found[name] += kept or []
        if not ONLY_KEPT and (name, group) in extra:
            shutil.rmtree(WORK / PAGE / "models" / name.replace(", ", "-").replace(" ", "-"), ignore_errors=True)
    document = {"conditions": found, "mini": step(PAGE, "mini", mini), "machine": machine()}
    write_page(PAGE, document, page(document))


def mini() -> dict[str, Any]:
    """The whole of `langslice reproduce kim2024` on the packaged model: its tables as plain data."""
    import langslice

    found = langslice.reproduce(
        "kim2024", "mini", WORK / PAGE / "mini-run", data=data(), limit=24, prompts=16, seeds=3, sparsities=("0.3", "0.5"),
        languages=("en", "fr", "zh", "sw", "ko"), tasks=("xnli", "xcopa", "translation_loss"), separator="\\n", device="cpu",
    )  # fmt: skip
    sheets = [{"title": one.title, "columns": one.columns, "rows": one.rows} for one in found.sheets]
    return {"sheets": sheets, "notes": found.notes}


def at_main(name: str) -> bool:
    """Is it one of the main table's conditions?"""
    return name in ("unpruned", f"magnitude at {SPARSITY:g}") or name.endswith(f"at {SPARSITY:g}, seed 0")


LOSS = ("translation_loss", "bits per byte of the reference")
PLAIN = ("perplexity", "bits per byte")
KORNLI, XCOPA = ("xnli", "accuracy (paper)"), ("xcopa", "accuracy (sum)")
RANKC, BLEU, CHRF = ("rankc", "RankC xcopa"), ("translation", "BLEU"), ("translation", "chrF2++")


def runs_of(document: dict[str, Any]) -> dict[str, Any]:
    """Conditions that have been measured, in the form that the tables of `reproduce` read."""
    from langslice.sweeps.result import Finished

    measured = {name: items for name, items in document["conditions"].items() if items}
    return {name: Finished(None, name, {"measured": items}, "", False) for name, items in measured.items()}  # type: ignore[arg-type]


def by_language(run: Any, where: tuple[str, str]) -> dict[str, Any]:
    """Measurements of one metric, with all languages together where there are several."""
    from langslice.reproduction.comparisons import measured

    return measured(run, *where) if run is not None else {}


def together(run: Any, where: tuple[str, str]) -> Any:
    """All languages together, or the only one; None where it was not measured."""
    found = by_language(run, where)
    return found.get("all") or (next(iter(found.values())) if len(found) == 1 else None)


def metric_table(runs: dict[str, Any], names: list[str], where: tuple[str, str], digits: int = 3) -> str:
    """A table of one metric: conditions, languages, and the change of all languages together from unpruned."""
    whole = by_language(runs.get("unpruned"), where)
    if not whole:
        return "Not measured yet.\n"
    rows = []
    for name in names:
        own = by_language(runs.get(name), where)
        if own:
            last = (
                []
                if name == "unpruned"
                else [
                    change_text(paired_change(together(runs["unpruned"], where), together(runs[name], where)), digits)
                ]
            )
            rows.append(
                [name.split(" at ")[0], *[value_text(own.get(code), digits) for code in whole], *(last or ["–"])]
            )
    items = len(next(iter(whole.values())).items)
    head = [f"n = {items}", *[code if code != "all" else "together" for code in whole], "change from unpruned"]
    return table(head, rows)


def against(runs: dict[str, Any]) -> str:
    """Translation demonstrations minus the other ways to prune, on the same items, as `reproduce` tabulates it."""
    from langslice.reproduction.comparisons import against_others
    from langslice.sweeps.result import Sweep

    there = [kind for kind in FIRST if full_name(kind) in runs]
    done = Sweep(WORK, tuple(runs[full_name(kind)] for kind in there))
    metrics = {"reference translations": LOSS, "plain text": PLAIN, "KorNLI": KORNLI, "XCOPA": XCOPA}
    sheets = against_others(done, there, metrics)
    return (
        table(["", *sheets[0].columns], [[name, *cells] for name, cells in sheets[0].rows])
        if sheets
        else "Not measured yet.\n"
    )


def full_name(kind: str, sparsity: float = SPARSITY, seed: int = 0) -> str:
    """Name of a condition."""
    return kind if kind == "unpruned" else f"{kind} at {sparsity:g}" + ("" if kind == "magnitude" else f", seed {seed}")


def sweep_table(runs: dict[str, Any]) -> str:
    """Loss of the reference translations by sparsity, all languages together."""
    sparsities = sorted({SPARSITY, *SPARSITIES})
    there = [each for each in sparsities if full_name("mt fr-en", each) in runs]
    if len(there) < 2:
        return "Not measured yet.\n"
    rows = [[kind, *[value_text(together(runs.get(full_name(kind, each)), LOSS)) for each in there]] for kind in SWEPT]
    rows.append([
        "mt fr-en − mono en",
        *[
            change_text(paired_change(*(together(runs.get(full_name(kind, each)), LOSS) for kind in ("mono en", "mt fr-en"))))
            for each in there
        ],
    ])  # fmt: skip
    return table(["bits per byte of the reference", *[f"{each:g}" for each in there]], rows)


def seed_table(runs: dict[str, Any]) -> str:
    """Loss of the reference translations by seed."""
    rows = []
    for kind in ("mt fr-en", "mono en", "random"):
        found = [together(runs.get(full_name(kind, SPARSITY, seed)), LOSS) for seed in (0, *SEEDS)]
        values = [one.value for one in found if one is not None]
        spread = f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else "–"
        rows.append([kind, *[f"{one.value:.4f}" if one is not None else "–" for one in found], spread])
    if all(row[-1] == "–" for row in rows):
        return "Not measured yet.\n"
    return table(["seed", *map(str, (0, *SEEDS)), "mean (lowest to highest)"], rows)


def other_table(runs: dict[str, Any]) -> str:
    """Demonstrations of other number and quality, at 0.5."""
    base = full_name("mt fr-en", 0.5)
    rows = []
    for name in (base, *[f"mt fr-en, {each}" for each in OTHER]):
        found = together(runs.get(name), LOSS)
        if found is not None:
            own = "–" if name == base else change_text(paired_change(together(runs.get(base), LOSS), found))
            rows.append(
                [
                    f"{PROMPTS} prompts of 4 shots" if name == base else name.removeprefix("mt fr-en, "),
                    value_text(found),
                    own,
                ]
            )
    return (
        table(["demonstrations of fr-en, sparsity 0.5", "bits per byte of the reference", "change"], rows)
        if len(rows) > 1
        else "Not measured yet.\n"
    )


def mini_tables(document: dict[str, Any]) -> str:
    """Tables of the packaged model: what the conditions change, translation against the others, by sparsity, over seeds."""
    if not document.get("mini"):
        return "Not measured yet.\n"
    wanted = ("bits per byte: change from unpruned", "against the others", "bits per byte: by sparsity", "Over 3 seeds")
    parts = []
    for sheet in document["mini"]["sheets"]:
        if any(part in sheet["title"] for part in wanted):
            rows = [[name, *cells] for name, cells in sheet["rows"]]
            parts.append(f"{sheet['title']}:\n\n{table(['', *sheet['columns']], rows)}")
    return "\n".join(parts)


def verdict(found: Any, wanted: str) -> str:
    """`holds` where a change goes the wanted way for sure, `does not hold` where it goes the other way, else neither."""
    if found is None or np.isnan(found.value):
        return "cannot be told here: not measured"
    if found.low <= 0 <= found.high:
        return "not seen: the interval holds zero"
    return "holds" if (found.value < 0) == (wanted == "lower") else "does not hold: the other way round"


def findings(runs: dict[str, Any]) -> str:
    """Each finding of the paper, what became of it here, and the figure."""

    def pair(first: str, second: str, where: tuple[str, str], sparsity: float) -> Any:
        return paired_change(*(together(runs.get(full_name(each, sparsity)), where) for each in (first, second)))

    lines = []
    asked = [
        ("Demonstrations keep what translation needs better than English text does", "mono en", "mt fr-en", LOSS, "lower"),
        ("Demonstrations keep it better than English text does, at a sparsity of 0.5", "mono en", "mt fr-en", LOSS, "lower"),
        ("Demonstrations keep what translation needs better than chance does", "random", "mt fr-en", LOSS, "lower"),
        ("Demonstrations keep what translation needs better than the weights' size does", "magnitude", "mt fr-en", LOSS, "lower"),
        ("Code to avoid refines the choice (BLOOM in the paper), for translation", "mt fr-en", "code-refined", LOSS, "lower"),
        ("Pruned by translation, better than whole at translation itself", "unpruned", "mt fr-en", LOSS, "lower"),
        ("Pruned by translation, better than whole elsewhere (the main claim): KorNLI", "unpruned", "mt fr-en", KORNLI, "higher"),
        ("Pruned by translation, better than whole elsewhere: XCOPA, zh and sw", "unpruned", "mt fr-en", XCOPA, "higher"),
        ("Pruned by translation, better than by English text: KorNLI", "mono en", "mt fr-en", KORNLI, "higher"),
        ("Pruned by translation, better than by English text: XCOPA", "mono en", "mt fr-en", XCOPA, "higher"),
        ("Pruned by translation, answers ranked more alike in zh and sw: RankC", "unpruned", "mt fr-en", RANKC, "higher"),
    ]  # fmt: skip
    for claim, first, second, where, wanted in asked:
        found = pair(first, second, where, 0.5 if claim.endswith("0.5") else SPARSITY)
        figure = "" if found is None else f" ({second} minus {first}: {change_text(found)})"
        lines.append(f"- {claim} → **{verdict(found, wanted)}**{figure}")
    found = paired_change(
        *(together(runs.get(name), LOSS) for name in (full_name("mt fr-en", 0.5), "mt fr-en, misaligned"))
    )
    lines += [
        "- Demonstrations must translate: pairs that do not belong together keep less of translation → "
        f"**{verdict(found, 'higher')}** (misaligned minus aligned, at 0.5: {change_text(found)})",
        "- Sentiment (MARC) → **cannot be told here**: the data is not at hand",
        "- Base against instruction-tuned models → **cannot be told here**: gemma-3-270m is at hand as a base model only",
        "- RankC over XNLI → **cannot be told here**: at hand is Korean alone (KorNLI), and RankC compares languages",
        "- Features of translation, and what zeroing them costs: [kim2024_features](kim2024_features.md)",
    ]
    return "\n".join(lines)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    runs = runs_of(document)
    names = [full_name(kind) for kind in FIRST]
    whole = runs.get("unpruned")
    loss, plain, choice, translation = (GROUPS[group] for group in ("loss", "plain", "choice", "translation"))
    return f"""# Pruning by demonstrations of translation: gemma-3-270m

`benchmarks/real/kim2024.py`, after Kim et al. 2024 (arXiv 2409.16911; there XGLM-2.9B, mGPT and BLOOM-3B, 100 prompts,
FLORES-200): {SPARSITY:.0%} of the weights of every linear layer become zero, those that count least while the model reads
demonstrations; float32. Here: {PROMPTS} demonstrations of four shots from the second half of NTREX-128, measured on its first
lines; code is HumanEval's prompts; random and magnitude need no text. Prompts of translation end their lines with a line break:
after the paper's end-of-text token gemma does not stop, and goes on to further text. `langslice reproduce kim2024` runs the same
conditions with the paper's sizes.
{document["machine"]}

## Findings of the paper
{findings(runs)}

## Translation: loss of the reference
Bits per byte of the reference translation after four demonstrations, less is better; {loss["limit"]} lines of NTREX-128 per
language. Unlike BLEU it tells models apart on few lines. Swahili is in no demonstration. *Together* counts a line in all its
languages as one item.

{metric_table(runs, names, LOSS)}
## Plain text
Bits per byte of {plain["limit"]} lines per language, each by itself.

{metric_table(runs, names, PLAIN)}
## Demonstrations of translation against the other ways to prune
Paired, all languages together; for bits per byte less is better, for accuracy more; \\* is p < 0.05.

{against(runs)}
## KorNLI
The paper's template and label score; {choice["limit"]} items; chance is 1/3.{beside_chance(together(whole, KORNLI), 1 / 3)}

{metric_table(runs, names, KORNLI)}
## XCOPA
{choice["limit"]} items per language; chance is 1/2.{beside_chance(together(whole, XCOPA), 1 / 2)}

{metric_table(runs, names, XCOPA)}
## RankC over XCOPA
Chinese and Swahili; two random orders agree to 0.634.

{metric_table(runs, names, RANKC)}
## Translation fr-en
Greedy, four shots, {translation["limit"]} lines, sacreBLEU.

{metric_table(runs, names, BLEU, 2)}
{metric_table(runs, names, CHRF, 2)}
## Sparsity
{sweep_table(runs)}
## Seeds
Other sentences for the demonstrations, and other random masks, at {SPARSITY:g}; bits per byte of the reference.

{seed_table(runs)}
## Demonstrations of other number and quality
*misaligned*: each French sentence with the translation of the next one.

{other_table(runs)}
## langslice-mini
`langslice reproduce kim2024 --model mini --data DIR -n 24 --prompts 16 --seeds 3 --sparsities 0.3,0.5 -l en,fr,zh,sw,ko --tasks
xnli,xcopa,translation_loss --separator '\\n'`; \\* is p < 0.05. The model hardly translates: what pruning costs it is what it costs
its text after such a prompt.

{mini_tables(document)}"""


if __name__ == "__main__":
    main()
