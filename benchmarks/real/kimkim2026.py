"""Kim and Kim 2026 (arXiv 2604.16235) on gemma-3-270m: the vocabulary by script, for English and Korean, and with Chinese.

    python benchmarks/real/kimkim2026.py

The conditions of `langslice reproduce kimkim2026`: sizes, perplexity, language confusion, loss of reference translations,
translation, speed and memory, the three models taking turns; the paper's own figures next to ours. Writes
results/real/kimkim2026.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import data, machine, models, ntrex, sliced, step, table, write_page

PAGE, MODEL = "kimkim2026", "gemma-3-270m"
PAIRS = "ko-en,en-ko"
LINES = 32
# Measured together, so that each model is loaded once for each.
GROUPS: dict[str, dict[str, Any]] = {
    "text": {
        "tasks": "perplexity,translation_loss,confusion",
        "languages": "ko,en,zh",
        "pairs": PAIRS,
        "new_tokens": 24,
    },
    "translation": {"tasks": "translation", "languages": "ko,en", "pairs": PAIRS, "new_tokens": 48},
}
ROUNDS, PROMPT, WRITTEN = 18, 48, 6
SPEEDS = {"first": "first token after 48, seconds", "token": "each further token, seconds"}


def configurations() -> dict[str, tuple[Path, Any]]:
    """The original and both slices, each with its sizes."""
    from langslice.reproduction.kimkim2026 import CONDITIONS

    found: dict[str, tuple[Path, Any]] = {}
    for name, entries in CONDITIONS.items():
        found[name] = (
            (models() / MODEL, None) if entries is None else sliced(PAGE, name, MODEL, "--scripts", entries["scripts"])
        )
    return found


def measure(folder: Path, group: str) -> Any:
    """Every item of a group of tasks."""
    from langslice.recipes.execution import measure as measured

    options = {"data": str(data()), "shots": 4, "limit": LINES, "device": "cpu", "dtype": "float32", **GROUPS[group]}
    return [one for one in measured(folder, options)["measured"] if one["task"] != "size"]


def speeds(folders: dict[str, Path]) -> dict[str, Any]:
    """Seconds to the first token and per further one, all models in one process, taking turns at every prompt.

    Who begins changes from prompt to prompt, so that none always comes after the same other.
    """
    import time

    import torch

    from langslice.evaluation.loaded_model import encode_texts, load_model
    from langslice.model.transformers_classes import cache_of, cache_option

    loaded = {name: load_model(folder, device="cpu") for name, folder in folders.items()}
    lines = [f"{one} {two}" for one, two in zip(ntrex("ko"), ntrex("en"), strict=True)][: ROUNDS + 1]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    names = list(loaded)
    for number, line in enumerate(lines):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            each = loaded[name]
            ids = torch.tensor([(encode_texts(each, [line])[0] * 4)[:PROMPT]])
            with torch.inference_mode():
                started = time.perf_counter()
                output = each.model(input_ids=ids, use_cache=True, logits_to_keep=1)
                first = time.perf_counter() - started
                for _ in range(WRITTEN):
                    token = output.logits[:, -1:].argmax(-1)
                    output = each.model(input_ids=token, use_cache=True, **cache_option(each.model, cache_of(output)))
                rest = (time.perf_counter() - started - first) / WRITTEN
            if number:  # the first round warms up
                found[name].append({"first": first, "token": rest})
    return found


def memory(folders: dict[str, Path]) -> dict[str, int]:
    """Peak bytes of loading each model, reading 256 tokens and writing 32; a process for each."""
    from langslice.evaluation.speed import speed_rounds

    return {name: min(run.memory_bytes for run in runs) for name, runs in speed_rounds(folders, rounds=2).items()}


def main() -> None:
    """Measure, and write the page."""
    every = configurations()
    document: dict[str, Any] = {"sizes": {name: made for name, (_, made) in every.items()}, "items": {}}
    for group in GROUPS:
        for name, (folder, _) in every.items():
            document["items"][f"{group} {name}"] = step(
                PAGE, f"{name}-{group}", lambda folder=folder, group=group: measure(folder, group)
            )
        if group == "text":
            document["speed"] = step(
                PAGE, "speed", lambda: speeds({name: folder for name, (folder, _) in every.items()})
            )
    document["memory"] = step(PAGE, "memory", lambda: memory({name: folder for name, (folder, _) in every.items()}))
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def measurements(document: dict[str, Any], group: str, name: str) -> dict[tuple[str, str, str], Any]:
    """What was measured of one model, by task, language and metric."""
    from langslice.evaluation.measurement import measurement_from_json

    found = [measurement_from_json(one) for one in document["items"][f"{group} {name}"] or []]
    return {one.key: one for one in found}


def rows_of(document: dict[str, Any], group: str, metrics: dict[str, int]) -> list[list[str]]:
    """A row per language and metric: n, the original, and each slice with its paired change."""
    from langslice.evaluation.statistics import difference

    before = measurements(document, group, "Original")
    rows = []
    for key, first in before.items():
        if key[2] not in metrics:
            continue
        digits = metrics[key[2]]
        cells = [key[1], key[2], f"{len(first.items)}", f"{first.value:.{digits}f}"]
        for name in ("EnKo", "EnKoZh"):
            second = measurements(document, group, name).get(key)
            if second is None:
                cells.append("–")
                continue
            found = difference(first.statistic, first.items, second.items)
            text = f"{second.value:.{digits}f}"
            if not np.isnan(found.value) and not np.isnan(found.low):
                text += f" ({found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}])"
            cells.append(text)
        rows.append(cells)
    return rows


def shown(document: dict[str, Any], group: str, metrics: dict[str, int]) -> str:
    """The table of a group."""
    rows = rows_of(document, group, metrics)
    return (
        table(["", "measure", "n", "Original", "EnKo", "EnKoZh"], rows, text_columns=2)
        if rows
        else "Not measured yet.\n"
    )


def size_table(document: dict[str, Any]) -> str:
    """Rows, parameters and bytes."""
    made = document["sizes"]
    if not made["EnKo"]:
        return "Not measured yet.\n"
    rows = []
    for name in made:
        size = made["EnKo"]["before"] if name == "Original" else made[name]["after"] if made[name] else None
        if size:
            cpu = "" if name == "Original" else f"{made[name]['cpu_seconds']:.0f}"
            share = f"{size['rows'] / made['EnKo']['before']['rows']:.3f}"
            rows.append([name, f"{size['rows']:,}", share, f"{size['parameters'] / 1e6:.1f}", f"{size['mb']:.1f}", cpu])
    return table(["", "rows", "of the original", "M parameters", "weights, MB", "slicing and verifying, CPU s"], rows)


def ratio(speed: dict[str, Any], name: str, key: str) -> tuple[float, float, float]:
    """Time of a slice over that of the original in the same round: the median, with its 95% interval over rounds."""
    from langslice.evaluation.statistics import interval

    ratios = np.array([[one[key] / other[key]] for one, other in zip(speed[name], speed["Original"], strict=True)])
    bounds = interval("median", ratios)
    return float(np.median(ratios)), bounds.low, bounds.high


def speed_table(document: dict[str, Any]) -> str:
    """Medians, and the median ratio to the original of the same round with its interval."""
    speed = document.get("speed")
    if not speed:
        return "Not measured yet.\n"
    rows = []
    for key, title in SPEEDS.items():
        cells = [title, f"{np.median([one[key] for one in speed['Original']]):.3f}"]
        for name in ("EnKo", "EnKoZh"):
            middle, low, high = ratio(speed, name, key)
            cells.append(f"{np.median([one[key] for one in speed[name]]):.3f} ({middle:.2f} [{low:.2f}, {high:.2f}])")
        rows.append(cells)
    return table(["", "Original", "EnKo", "EnKoZh"], rows)


def memory_table(document: dict[str, Any]) -> str:
    """Peak memory of each model, and its share of the original's."""
    found = document.get("memory")
    if not found:
        return "Memory: not measured yet.\n"
    shares = {name: "" if name == "Original" else f" ({size / found['Original']:.2f})" for name, size in found.items()}
    cells = [f"{size / 1e6:.0f}{shares[name]}" for name, size in found.items()]
    return table(["", *found], [["peak memory, float32, MB", *cells]])


def change_of(document: dict[str, Any], group: str, key: tuple[str, str, str], name: str) -> Any:
    """Paired change of one metric in one slice; None where it was not measured."""
    from langslice.evaluation.statistics import difference

    first, second = measurements(document, group, "Original").get(key), measurements(document, group, name).get(key)
    return None if first is None or second is None else difference(first.statistic, first.items, second.items)


def told(found: Any, digits: int = 3) -> str:
    """A change with its interval."""
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def findings(document: dict[str, Any]) -> str:
    """Each finding of the paper, what became of it here, and the figure."""
    lines = []
    made, speed = document["sizes"], document.get("speed")
    if made["EnKo"] and made["EnKoZh"]:
        shares = [made[name]["after"]["rows"] / made["EnKo"]["before"]["rows"] for name in ("EnKo", "EnKoZh")]
        lines.append(
            "- A slice by script drops much of the vocabulary (Seed-X: 0.64 and 0.87 of it stay) → **holds**: "
            f"{shares[0]:.2f} and {shares[1]:.2f} stay"
        )
    if speed:
        each = {name: ratio(speed, name, "token") for name in ("EnKo", "EnKoZh")}
        said = ", ".join(
            f"{name} {one - 1:+.0%} [{low - 1:+.0%}, {high - 1:+.0%}]" for name, (one, low, high) in each.items()
        )
        sure = "does not hold, it falls: the head is most of this model" if each["EnKo"][2] < 0.97 else "holds"
        lines.append(
            f"- Latency hardly changes (Seed-X, 7 billion parameters: −0.9% and −0.4%) → **{sure}** (per token {said})"
        )
    else:
        lines.append("- Latency hardly changes (Seed-X: −0.9% and −0.4%) → **cannot be told here**: not measured")
    for title, key in (
        ("Word pass rate rises (Qwen3-4B: .888 to .992), Korean", ("confusion", "ko", "word pass rate")),
        ("Line pass rate rises, Korean", ("confusion", "ko", "line pass rate")),
    ):
        found = change_of(document, "text", key, "EnKo")
        if found is None or np.isnan(found.value):
            lines.append(f"- {title} → **cannot be told here**: not measured")
        else:
            sure = (
                "holds" if found.low > 0 else "does not hold" if found.high < 0 else "not seen: the interval holds zero"
            )
            if measurements(document, "text", "Original")[key].value == 1:
                sure = "cannot be told here: the original already passes every time"
            lines.append(f"- {title} → **{sure}** (EnKo minus Original: {told(found)})")
    for title, group, where, good in (
        ("Translation is better (14 of 16 models): loss of the reference, ko-en", "text",
         ("translation_loss", "ko-en", "bits per byte of the reference"), -1),
        ("Translation is better: loss of the reference, en-ko", "text",
         ("translation_loss", "en-ko", "bits per byte of the reference"), -1),
        ("Translation is better: chrF++, ko-en", "translation", ("translation", "ko-en", "chrF2++"), 1),
        ("Translation is better: chrF++, en-ko", "translation", ("translation", "en-ko", "chrF2++"), 1),
    ):  # fmt: skip
        found = change_of(document, group, where, "EnKo")
        if found is None:
            lines.append(f"- {title} → **cannot be told here**: not measured")
            continue
        sure = "not seen: the interval holds zero"
        if found.low == found.high == 0:
            sure = "not seen: no line scores differently"
        if not found.low <= 0 <= found.high:
            sure = "holds" if found.value * good > 0 else "does not hold"
        if sure == "holds" and group == "text" and abs(found.value) < 0.01:
            sure = "holds by next to nothing, probability being shared out among fewer tokens"
        lines.append(f"- {title} → **{sure}** (EnKo minus Original: {told(found, 5 if group == 'text' else 2)})")
    lines.append(
        "- KMMLU, HAERAE and CLIcK move by under 0.004 → **cannot be told here**: the data is not at hand; KorNLI of a slice for "
        "Korean and English is on [korean_llm](korean_llm.md)"
    )
    return "\n".join(lines)


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    return f"""# Token pruning for Korean: gemma-3-270m

`benchmarks/real/kimkim2026.py`, after Kim and Kim 2026 (arXiv 2604.16235; there Qwen3, Gemma 3, Llama 3, Aya and Seed-X). EnKo
keeps the tokens of Latin and Hangul, EnKoZh those of Han too; layers stay as they are. A base model, float32; changes are to the
original on the same items. {document["machine"]}

## Findings of the paper
{findings(document)}

## Vocabulary and size
The paper, Seed-X-7B: 65,269 tokens, EnKo 41,704, EnKoZh 56,660.

{size_table(document)}
## Latency and memory
{ROUNDS} prompts of {PROMPT} tokens, {WRITTEN} tokens written after each, one thread; the three models taking turns at every
prompt, each as often first. In brackets the ratio to the original at the same prompt. Memory: of loading, reading 256 tokens and
writing 32, each in a process of its own, beyond what that held before; the smaller of two runs. The paper, Seed-X-7B: latency
−0.9% (EnKo) and −0.4% (EnKoZh).

{speed_table(document)}
{memory_table(document)}
## Language confusion
The model goes on from {LINES} lines of NTREX-128 per language. The paper, Qwen3-4B: word pass rate .888, sliced .992.
EnKo has lost the tokens of Chinese and still writes its characters, byte by byte.

{shown(document, "text", {"line pass rate": 3, "word pass rate": 3, "pass rate, both": 3, "foreign script": 4})}
## Perplexity
{LINES} lines of NTREX-128 per language. A slice shares out probability among fewer tokens; text whose tokens were dropped
is read in bytes.

{shown(document, "text", {"bits per byte": 4, "perplexity per byte": 3})}
## Translation: loss of the reference
Four shots, {LINES} lines; less is better.

{shown(document, "text", {"bits per byte of the reference": 5})}
## Translation
Greedy, four shots, {LINES} lines, sacreBLEU.

{shown(document, "translation", {"BLEU": 2, "chrF2++": 2})}
"""


if __name__ == "__main__":
    main()
