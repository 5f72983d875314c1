"""Kim et al. 2024 (arXiv 2409.16911) on gemma-3-270m: which weights translation needs, by demonstrations of translation.

    python benchmarks/real/kim2024.py

The conditions of `langslice reproduce kim2024`, pruned once and measured in steps that are kept: loss of reference translations and
of plain text, KorNLI, XCOPA and RankC over it, translation. Then further sparsities, seeds, and demonstrations of other number
and quality. Writes results/real/kim2024.md, with each finding of the paper and whether it holds here.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import ONLY_KEPT, WORK, data, machine, models, step, table, write_page

PAGE, MODEL = "kim2024", "gemma-3-270m"
SPARSITY, PROMPTS = 0.3, 8
SOURCES = ("fr", "zh", "sw")
# Tasks measured together -> options of the evaluation; the first of each condition come before the second of any.
GROUPS: dict[str, dict[str, Any]] = {
    "loss": {"tasks": "translation_loss", "languages": ",".join(SOURCES), "limit": 16, "shots": 4},
    "plain": {"tasks": "perplexity", "languages": "en,fr,zh", "limit": 8},
    "choice": {"tasks": "xnli,xcopa,rankc:xcopa", "languages": "ko,zh,sw", "limit": 40},
    "translation": {"tasks": "translation", "languages": "fr", "limit": 24, "shots": 4, "new_tokens": 48},
}
# In this order, so that a run that is stopped has the most telling ones.
FIRST = ("unpruned", "mt fr-en", "mono en", "random", "magnitude", "code-refined", "mt zh-en", "mt es-en")
# Measured at further sparsities, with further seeds and with other demonstrations.
SHORT = "loss"
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
    out = WORK / PAGE / "models" / slug(name)
    if not (out / "config.json").is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        prune_copy(models() / MODEL, out, sparsity_request(entry, None), overwrite=True)
    return out


def slug(name: str) -> str:
    """A condition as a file name."""
    return name.replace(", ", "-").replace(" ", "-")


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
    extra = [(name, SHORT) for name in every if not at_main(name)]
    half = 2 * len(first)
    for name, group in [*asked[:half], *extra[: len(SWEPT)], *asked[half:], *extra[len(SWEPT) :]]:
        kept = step(PAGE, f"{slug(name)}-{group}", partial(measure, name, every[name], group))
        found[name] += kept or []
        if not ONLY_KEPT and (name, group) in extra:
            shutil.rmtree(WORK / PAGE / "models" / slug(name), ignore_errors=True)
    document = {"conditions": found, "machine": machine()}
    write_page(PAGE, document, page(document))


def at_main(name: str) -> bool:
    """Is it one of the main table's conditions?"""
    return name in ("unpruned", f"magnitude at {SPARSITY:g}") or name.endswith(f"at {SPARSITY:g}, seed 0")


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    return ""


if __name__ == "__main__":
    main()
