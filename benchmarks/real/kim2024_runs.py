"""Runs of kim2024.py: the conditions of Kim et al. 2024, pruned one at a time, and what is measured of each."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from common import ONLY_KEPT, WORK, data, machine, models, ntrex, second_halves, step

PAGE, MODEL = "kim2024", "gemma-3-270m"
SPARSITY, PROMPTS, HIGHER = 0.3, 32, 0.5
SOURCES = ("fr", "zh", "sw")
GROUPS: dict[str, dict[str, Any]] = {
    "loss": {"tasks": "translation_loss", "languages": ",".join(SOURCES), "limit": 32, "shots": 4},
    "plain": {"tasks": "perplexity", "languages": "en,fr,zh", "limit": 24},
    "choice": {"tasks": "xnli,xcopa,rankc:xcopa", "languages": "ko,zh,sw", "limit": 80},
    "halves": {"languages": ("ko", "sw"), "limit": 64},
    "translation": {"tasks": "translation", "languages": "fr", "limit": 32, "shots": 4, "new_tokens": 48},
}
# In this order, so that a run that is stopped has the most telling ones.
FIRST = ("unpruned", "mt fr-en", "mono en", "random", "magnitude", "code-refined", "mt zh-en", "mt es-en")
# Measured at further sparsities, with further seeds and with other demonstrations.
SPARSITIES, SEEDS = (0.5, 0.1, 0.2, 0.4, 0.6), (0, 1, 2)
SWEPT = ("mt fr-en", "mono en", "random", "magnitude")
DRAWN = ("mt fr-en", "mono en", "random")
OTHER: dict[str, dict[str, Any]] = {
    "misaligned": {"misaligned": True},
    "2 prompts": {"count": 2},
    "8 prompts": {"count": 8},
    "100 prompts": {"count": 100},
    "1 shot": {"shots": 1, "count": 4 * PROMPTS},
    "English first": {"languages": "en,fr"},
    "of zh-en": {"languages": "zh,en"},
    "of es-en": {"languages": "es,en"},
}


def folder() -> Path:
    """The data folder that `reproduce` gathers, with the lines for demonstrations apart."""
    from langslice.reproduction.data_folder import gather_data

    return gather_data(WORK / PAGE / "data", {}, data(), packaged=False)


def conditions() -> dict[str, Any]:
    """Every condition as an entry of a recipe: those of the main table, further sparsities, seeds, other demonstrations."""
    from langslice.reproduction.kim2024 import make_conditions

    def made(kinds: tuple[str, ...], **amounts: Any) -> dict[str, Any]:
        every, _ = make_conditions(folder(), None, prompts=PROMPTS, **amounts)
        return {str(name): entry for name, entry in every.items() if name.kind in kinds}

    found = made(FIRST, sparsities=(SPARSITY,))
    further = made(SWEPT, sparsities=SPARSITIES)
    # Demonstrations differ more the more is pruned: seeds are compared at both sparsities.
    drawn = made(DRAWN, sparsities=(HIGHER, SPARSITY), seeds=SEEDS)
    keep = found[full_name("mt fr-en")]["keep"]
    other = {
        f"mt fr-en, {name}": {"sparsity": HIGHER, "keep": misaligned({**keep, **change})}
        for name, change in OTHER.items()
    }
    return {
        **found,
        **further,
        **{name: entry for name, entry in drawn.items() if not name.endswith("seed 0")},
        **other,
    }


def full_name(kind: str, sparsity: float = SPARSITY, seed: int = 0) -> str:
    """Name of a condition."""
    return kind if kind == "unpruned" else f"{kind} at {sparsity:g}" + ("" if kind == "magnitude" else f", seed {seed}")


# The conditions of the main table; what the first of them write is looked at.
MAIN = tuple(full_name(kind) for kind in FIRST)
LOOKED_AT = MAIN[:3]


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


def stem(name: str) -> str:
    """Of the files of a condition."""
    return name.replace(", ", "-").replace(" ", "-")


def pruned(name: str, entry: Any) -> Path:
    """The model of a condition, pruned now or kept from before."""
    from langslice.recipes.execution import sparsity_request
    from langslice.sparsity import prune_copy

    if entry is None:
        return models() / MODEL
    out = WORK / PAGE / "models" / stem(name)
    if not (out / "config.json").is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        prune_copy(models() / MODEL, out, sparsity_request(entry, None), overwrite=True)
    return out


def measure_halves(model: Path) -> list[dict[str, Any]]:
    """Which second half of a line goes on from the first, by sums of log probabilities, in each language."""
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.zero_shot import measure_choice

    loaded, found = load_model(model, device="cpu"), []
    for code in GROUPS["halves"]["languages"]:
        asked = second_halves(code, range(len(ntrex(code)) // 2), GROUPS["halves"]["limit"])
        found += measure_choice(loaded, "halves", code, asked, ("sum",))
    return [one.to_json() for one in found]


def measure(name: str, entry: Any, group: str) -> list[dict[str, Any]]:
    """Every item of a group of tasks."""
    from langslice.recipes.execution import measure as measured

    if group == "halves":
        return measure_halves(pruned(name, entry))
    options = {"data": str(folder()), "available": True, "device": "cpu", "dtype": "float32", **GROUPS[group]}
    found: list[dict[str, Any]] = measured(pruned(name, entry), options)["measured"]
    return [one for one in found if one["task"] != "size"]


def outputs(model: Path) -> dict[str, list[str]]:
    """Greedy translations of the lines that are scored, and those of the demonstrations before them."""
    from langslice.evaluation.loaded_model import load_model
    from langslice.evaluation.parallel import read_parallel
    from langslice.evaluation.translation import make_pair, translate

    settings = GROUPS["translation"]
    text = read_parallel("translation", [settings["languages"], "en"], folder())
    pair = make_pair(text, settings["languages"], "en", shots=settings["shots"], limit=settings["limit"])
    written = translate(load_model(model, device="cpu"), pair, new_tokens=settings["new_tokens"])
    return {"shots": [target for _, target in pair.shots], "written": written}


def asked(every: dict[str, Any]) -> list[tuple[str, str]]:
    """Condition and group of every step, those that say most first, for a run that is stopped."""
    first = [name for name in MAIN if name in every]
    extra = [(name, "loss") for name in every if name not in first]
    main = [(name, group) for group in GROUPS for name in first]
    told = DRAWN[:2]  # random masks leave nothing to compare: they come last
    early = [
        *main[: len(first)], *[(full_name(kind, HIGHER), "loss") for kind in SWEPT], (f"mt fr-en, {next(iter(OTHER))}", "loss"),
        *[(name, group) for group in ("choice", "halves", "translation") for name in first[:3]],
        *[(full_name(kind, HIGHER), "translation") for kind in told],
        *[(full_name(kind, HIGHER, seed), "loss") for seed in SEEDS for kind in told],
        *[(f"mt fr-en, {name}", "loss") for name in OTHER],
        *[(full_name(kind, sparsity), "loss") for sparsity in SPARSITIES for kind in told],
        *[(name, "plain") for name in first],
        *[one for one in extra if not one[0].startswith("random")],
    ]  # fmt: skip
    return list(dict.fromkeys([*early, *main, *extra]))


def collect() -> dict[str, Any]:
    """Every item that was measured, by condition."""
    every = conditions()
    found: dict[str, list[Any]] = {name: [] for name in every}
    order = asked(every)
    for at, (name, group) in enumerate(order):
        found[name] += step(PAGE, f"{stem(name)}-{group}", partial(measure, name, every[name], group)) or []
        if not ONLY_KEPT and name not in [*LOOKED_AT, *(later for later, _ in order[at + 1 :])]:
            shutil.rmtree(WORK / PAGE / "models" / stem(name), ignore_errors=True)
    written = {
        name: step(PAGE, f"{stem(name)}-outputs", lambda n=name: outputs(pruned(n, every[n]))) for name in LOOKED_AT
    }
    if not ONLY_KEPT:
        shutil.rmtree(WORK / PAGE / "models", ignore_errors=True)
    return {"conditions": found, "outputs": written, "mini": step(PAGE, "mini", mini), "machine": machine()}


def mini() -> dict[str, Any]:
    """The whole of `langslice reproduce kim2024` on the packaged model: its tables as plain data."""
    import langslice

    found = langslice.reproduce(
        "kim2024", "mini", WORK / PAGE / "mini-run", data=data(), limit=24, prompts=16, seeds=3, sparsities=("0.3", "0.5"),
        languages=("en", "fr", "zh", "sw", "ko"), tasks=("xnli", "xcopa", "translation_loss"), separator="\\n", device="cpu",
    )  # fmt: skip
    sheets = [{"title": one.title, "columns": one.columns, "rows": one.rows} for one in found.sheets]
    return {"sheets": sheets, "notes": found.notes}
