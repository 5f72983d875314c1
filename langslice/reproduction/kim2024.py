"""Kim et al. 2024, arXiv 2409.16911: pruning by translation demonstrations, against every other condition of the paper.

Sparsity 0.3 in every linear layer, float32; demonstrations of four shots, 100 where the text has so many. Classification by
the paper's templates and label score; translation into English, four-shot and greedy, parts ended by the end-of-text token;
RankC over XNLI's labels, in descending likelihood and as the published code has it.

What the paper leaves open and is settled here: demonstrations in one language are English; the random mask has seed 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from langslice.errors import TaskError
from langslice.progress import Report, silent
from langslice.reproduction.data_folder import gather_data
from langslice.reproduction.tables import Reproduction, Sheet, sheet, with_mean
from langslice.sweeps.main import sweep
from langslice.sweeps.result import Sweep

SPARSITY: Final = 0.3
PAIRS: Final = ("fr", "es", "zh")
LANGUAGES: Final = ("en", "fr", "es", "zh", "hi", "sw")
PROMPTS: Final = 100
SHOTS: Final = 4
TASKS: Final = ("xnli", "marc", "translation", "rankc")
CONDITIONS: Final = ("unpruned", *(f"mt {source}-en" for source in PAIRS), "mono en", "random", "code-refined")
# Title of each table -> task and metric.
TABLES: Final = {
    "XNLI, accuracy": ("xnli", "accuracy (paper)"),
    "MARC, accuracy": ("marc", "accuracy (paper)"),
    "Translation into English, BLEU": ("translation", "BLEU"),
    "Translation into English, chrF++": ("translation", "chrF2++"),
    "RankC, over xnli": ("rankc", "RankC xnli"),
    "RankC, over xcopa": ("rankc", "RankC xcopa"),
    "RankC as the published code computes it, over xnli": ("rankc", "RankC xnli, ascending"),
    "RankC as the published code computes it, over xcopa": ("rankc", "RankC xcopa, ascending"),
}


def kim2024(
    model: str,
    out: Path,
    *,
    flores: Path | None = None,
    xnli: Path | None = None,
    marc: Path | None = None,
    data: Path | None = None,
    code: Path | None = None,
    limit: int | None = None,
    new_tokens: int = 64,
    tasks: Sequence[str] = TASKS,
    device: str = "auto",
    processes: int = 1,
    ray: str | None = None,
    report: Report = silent,
) -> Reproduction:
    """Run every condition of the paper, and tabulate.

    model   XGLM, mGPT or BLOOM in the paper; any causal model; `mini` for a small run with the package's sentences
    out     folder of the sweep; it goes on where it was interrupted
    flores  flores200_dataset, with dev and devtest
    xnli    folder with xnli.test.tsv (XNLI-1.0), or one file per language
    marc    folder with dataset_CODE_test.json
    data    folder that holds data sets in their usual layouts, next to or instead of these
    code    source files for the code-refined condition, or HumanEval's jsonl
    limit   most items of each task and language
    tasks   of the paper's, those to run
    Raises  TaskError without text to translate; what the sweep raises
    """
    if flores is None and data is None and model != "mini":
        raise TaskError("no text for demonstrations and translation", "name FLORES-200 with --flores")
    if code is not None and not Path(code).exists():
        raise TaskError(f"no data at {code}", "name source files for the code-refined condition, or leave out --code")
    sets = {"flores200_dataset": flores, "xnli": xnli, "marc": marc}
    folder = gather_data(Path(out) / "data", sets, data, packaged=flores is None and data is None)
    conditions, notes = make_conditions(folder, code)
    asked = [_rankc_task(folder) if name == "rankc" else name for name in tasks]
    recipe: dict[str, Any] = {
        "model": model,
        "sparsify": list(conditions.values()),
        "evaluate": {
            "tasks": ",".join(asked), "languages": ",".join(LANGUAGES), "data": str(folder), "limit": limit,
            "shots": SHOTS, "new_tokens": new_tokens, "separator": "eos", "available": True, "reference": True,
            "device": device, "dtype": "float32",
        },
    }  # fmt: skip
    done = sweep(recipe, out, processes=processes, ray=ray, report=report)
    names = tuple(conditions)
    return Reproduction(f"kim2024: {model}", tuple(_sheets(done, names)), (*notes, *_notes(done, names)), done)


def make_conditions(folder: Path, code: Path | None) -> tuple[dict[str, Mapping[str, Any] | None], list[str]]:
    """Conditions by name, as entries of a recipe, and notes on those that had to be left out or made smaller."""
    from langslice.errors import NoDataError
    from langslice.evaluation.parallel import read_parallel

    made: dict[str, Mapping[str, Any] | None] = {"unpruned": None}
    notes: list[str] = []
    for source in PAIRS:
        try:
            text = read_parallel("demonstrations", [source, "en"], folder)
        except NoDataError as error:
            notes.append(f"left out: mt {source}-en, {error.message.splitlines()[0]}")
            continue
        lines = len((text.shots or text.lines)["en"])
        # After each prompt one pair is skipped.
        count = min(PROMPTS, (lines + 1) // (SHOTS + 1))
        if count < PROMPTS:
            notes.append(f"mt {source}-en: {count} prompts instead of {PROMPTS}; {text.name} has {lines} lines")
        keep = {"kind": "mt", "languages": f"{source},en", "data": str(folder), "count": count}
        made[f"mt {source}-en"] = {"sparsity": SPARSITY, "keep": keep}
    mono = next((entry["keep"] for entry in made.values() if entry), None)
    if mono is not None:
        made["mono en"] = {"sparsity": SPARSITY, "keep": {**mono, "kind": "mono", "languages": "en"}}
    made["random"] = {"sparsity": SPARSITY, "weights_by": "random"}
    found = next(iter(sorted(folder.glob("humaneval/*.jsonl*"))), None) if code is None else code
    if found is None:
        notes.append("left out: code-refined, which needs source code (--code)")
    elif mono is not None:
        field = {"text_field": "prompt"} if "jsonl" in found.name else {}
        avoid = {"kind": "code", "path": str(found), "count": PROMPTS, **field}
        made["code-refined"] = {"sparsity": SPARSITY, "keep": mono, "avoid": avoid}
    return made, notes


def _rankc_task(folder: Path) -> str:
    """RankC is over XNLI; over XCOPA where XNLI is there in fewer than two languages."""
    from langslice.evaluation.choice_tasks import load_task
    from langslice.evaluation.data_sets import find_file

    def languages(name: str) -> int:
        sources = load_task(name).sources
        return sum(
            any(
                s.file and (not s.languages or code in s.languages) and find_file(folder, s.file, code) for s in sources
            )
            for code in LANGUAGES
        )

    return "rankc:xcopa" if languages("xnli") < 2 <= languages("xcopa") else "rankc:xnli"


def _sheets(done: Sweep, names: tuple[str, ...]) -> list[Sheet]:
    found = [with_mean(sheet(done, names, title, *where)) for title, where in TABLES.items()]
    return [each for each in found if each.columns]


def _notes(done: Sweep, names: tuple[str, ...]) -> list[str]:
    notes: list[str] = []
    for name, run in zip(names, done.runs, strict=True):
        if run.result is None:
            notes.append(f"failed: {name}: {run.error.strip().splitlines()[0]}")
            continue
        notes += [note for role in run.result["notes"].values() for note in role]
        for score in run.result["scores"]:
            random = score["details"]["original"].get("random")
            if random is not None:
                notes.append(f"{score['metric']} of two random orders: {random:.3f}")
    return list(dict.fromkeys(notes))
