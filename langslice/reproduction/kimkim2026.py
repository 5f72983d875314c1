"""Kim and Kim 2026, arXiv 2604.16235: the vocabulary sliced to English and Korean, or with Chinese too, by Unicode script.

Blocks stay as they are. Reported: vocabulary, size, memory, speed, perplexity, translation, language confusion. The paper
scores translation by XCOMET, which needs a model of its own; here it is BLEU and chrF++.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from langslice.errors import TaskError
from langslice.progress import Report, silent
from langslice.reproduction.data_folder import gather_data
from langslice.reproduction.tables import Reproduction, Sheet, sheet
from langslice.sweeps.main import sweep
from langslice.sweeps.result import Sweep

CONDITIONS: Final[dict[str, dict[str, str] | None]] = {
    "Original": None,
    "EnKo": {"scripts": "Latn,Hang"},
    "EnKoZh": {"scripts": "Latn,Hang,Hani"},
}
LANGUAGES: Final = ("en", "ko", "zh")
ROUNDS: Final = 5
TASKS: Final = ("perplexity", "translation", "confusion", "speed")
"""Times that speed is measured, unless it is said."""
SIZES: Final = "Vocabulary and size"
# Title of each further table -> task and metric.
TABLES: Final = {
    "Prefill, tokens per second": ("speed", "prefill, tokens per second"),
    "Decode, tokens per second": ("speed", "decode, tokens per second"),
    "First token, seconds": ("speed", "first token, seconds"),
    "Peak memory, bytes": ("speed", "peak memory, bytes"),
    "Perplexity per byte": ("perplexity", "perplexity per byte"),
    "Translation, BLEU": ("translation", "BLEU"),
    "Translation, chrF++": ("translation", "chrF2++"),
    "Line pass rate": ("confusion", "line pass rate"),
    "Word pass rate": ("confusion", "word pass rate"),
    "Pass rate, both": ("confusion", "pass rate, both"),
    "Foreign script": ("confusion", "foreign script"),
}
# What the paper reports, by a part of the model's name: (row, Original, EnKo, EnKoZh).
PUBLISHED: Final = {
    "seed-x": (
        ("vocabulary, tokens", "65,269", "41,704", "56,660"),
        ("latency against Original", "", "−0.9%", "−0.4%"),
    ),
    "qwen3-4b": (("word pass rate", "0.888", "0.992 (which of the two slices is not said)", ""),),
}  # fmt: skip


def kimkim2026(
    model: str,
    out: Path,
    *,
    flores: Path | None = None,
    data: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    new_tokens: int = 64,
    rounds: int = ROUNDS,
    tasks: Sequence[str] = TASKS,
    device: str = "auto",
    report: Report = silent,
) -> Reproduction:
    """Cut a model's vocabulary both ways, and measure all three models.

    model   any causal model; `mini` for a small run with the package's sentences
    flores  flores200_dataset; or
    data    a folder that holds FLORES-200 or NTREX-128
    tasks   of the paper's, those to run
    shots   of a translation prompt; four, and none for a model with a chat template, unless given
    Raises  TaskError without text to translate; what the sweep raises
    """
    if flores is None and data is None and model != "mini":
        raise TaskError("no text for perplexity, translation and prompts", "name FLORES-200 with --flores")
    packaged = flores is None and data is None
    folder = gather_data(Path(out) / "data", {"flores200_dataset": flores}, data, packaged=packaged)
    recipe: dict[str, Any] = {
        "model": model,
        "slice": list(CONDITIONS.values()),
        "evaluate": {
            "tasks": ",".join(tasks), "languages": ",".join(LANGUAGES),
            "pairs": "en-ko,ko-en,zh-ko,ko-zh", "data": str(folder), "limit": limit,
            "shots": _shots(model) if shots is None else shots, "new_tokens": new_tokens, "rounds": rounds,
            "available": True, "device": device,
        },
    }  # fmt: skip
    # One at a time: runs side by side would disturb each other's speed.
    done = sweep(recipe, out, processes=1, report=report)
    names = tuple(CONDITIONS)
    return Reproduction(f"kimkim2026: {model}", tuple(_sheets(done, names, model)), tuple(_notes(done, names)), done)


def _shots(model: str) -> int:
    from langslice.evaluation.loaded_model import load_tokenizer
    from langslice.model.checkpoint import open_checkpoint

    tokenizer = load_tokenizer(open_checkpoint(model).model_folder)
    return 0 if getattr(tokenizer, "chat_template", None) else 4


def _sheets(done: Sweep, names: tuple[str, ...], model: str) -> list[Sheet]:
    rows = []
    for name, run in zip(names, done.runs, strict=True):
        if run.result is None:
            continue
        models = run.result["models"]
        cut = models.get("slice", models["original"])
        rows.append((name, (f"{cut['vocabulary']:,}", f"{cut['parameters']:,}", f"{cut['size_bytes']:,}")))
    found = [Sheet(SIZES, ("rows", "parameters", "bytes"), tuple(rows))]
    found += [sheet(done, names, title, *where) for title, where in TABLES.items()]
    for part, published in PUBLISHED.items():
        if part in model.lower():
            found.append(Sheet("As published", names, tuple((row[0], row[1:]) for row in published)))
    return [each for each in found if each.columns and each.rows]


def _notes(done: Sweep, names: tuple[str, ...]) -> list[str]:
    notes: list[str] = []
    for name, run in zip(names, done.runs, strict=True):
        if run.result is None:
            notes.append(f"failed: {name}: {run.error.strip().splitlines()[0]}")
        else:
            notes += [note for role in run.result["notes"].values() for note in role]
    return list(dict.fromkeys(notes))
