"""Kim et al. 2024, arXiv 2409.16911: pruning by translation demonstrations, against every other condition of the paper.

Sparsity 0.3 in every linear layer, float32; demonstrations of four shots, 100 where the text has so many. Classification by
the paper's templates and label score; translation into English, four-shot and greedy, parts ended by the end-of-text token;
RankC over XNLI's labels, in descending likelihood and as the published code has it. Beyond the paper: XCOPA, the loss of the
reference translations, pruning by magnitude, further sparsities and seeds.

What the paper leaves open and is settled here: demonstrations in one language are English; the random mask has seed 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from langslice.errors import TaskError
from langslice.progress import Report, silent
from langslice.reproduction.comparisons import Condition, against_others, changes, over_seeds, over_sparsities
from langslice.reproduction.data_folder import gather_data, write_lines
from langslice.reproduction.tables import Reproduction, Sheet, sheet, with_mean
from langslice.sweeps.main import sweep
from langslice.sweeps.result import Sweep

SPARSITY: Final = 0.3
PAIRS: Final = ("fr", "es", "zh")
LANGUAGES: Final = ("en", "fr", "es", "zh", "hi", "sw")
PROMPTS: Final = 100
SHOTS: Final = 4
TASKS: Final = ("xnli", "marc", "xcopa", "translation", "translation_loss", "rankc")
CONDITIONS: Final = (
    "unpruned",
    *(f"mt {source}-en" for source in PAIRS),
    "mono en",
    "random",
    "magnitude",
    "code-refined",
)
# Title of each table -> task and metric.
TABLES: Final = {
    "XNLI, accuracy": ("xnli", "accuracy (paper)"),
    "MARC, accuracy": ("marc", "accuracy (paper)"),
    "XCOPA, accuracy": ("xcopa", "accuracy (sum)"),
    "Translation into English, BLEU": ("translation", "BLEU"),
    "Translation into English, chrF++": ("translation", "chrF2++"),
    "Reference translation into English, bits per byte": ("translation_loss", "bits per byte of the reference"),
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
    languages: Sequence[str] = LANGUAGES,
    sparsities: Sequence[float] = (SPARSITY,),
    seeds: Sequence[int] = (0,),
    prompts: int = PROMPTS,
    separator: str = "eos",
    device: str = "auto",
    processes: int = 1,
    ray: str | None = None,
    report: Report = silent,
) -> Reproduction:
    """Run every condition of the paper, and tabulate.

    model       XGLM, mGPT or BLOOM in the paper; any causal model; `mini` for a small run with the package's sentences
    out         folder of the sweep; it goes on where it was interrupted
    flores      flores200_dataset, with dev and devtest
    xnli        folder with xnli.test.tsv (XNLI-1.0), or one file per language
    marc        folder with dataset_CODE_test.json
    data        folder that holds data sets in their usual layouts, next to or instead of these
    code        source files for the code-refined condition, or HumanEval's jsonl
    limit       most items of each task and language
    tasks       of the paper's, those to run
    languages   to measure in; each but English is translated into English
    sparsities  the first is that of the main tables; all are in the tables over sparsities
    seeds       of calibration text and random masks; the first is that of the main tables, all are in the tables over seeds
    prompts     demonstrations of each calibration set
    separator   what ends a line of a translation prompt; `eos` as in the paper
    Raises      TaskError without text to translate; what the sweep raises
    """
    if flores is None and data is None and model != "mini":
        raise TaskError("no text for demonstrations and translation", "name FLORES-200 with --flores")
    if code is not None and not Path(code).exists():
        raise TaskError(f"no data at {code}", "name source files for the code-refined condition, or leave out --code")
    sets = {"flores200_dataset": flores, "xnli": xnli, "marc": marc}
    folder = gather_data(Path(out) / "data", sets, data, packaged=flores is None and data is None)
    conditions, notes = make_conditions(folder, code, sparsities=sparsities, seeds=seeds, prompts=prompts)
    asked = [_rankc_task(folder, languages) if name == "rankc" else name for name in tasks]
    recipe: dict[str, Any] = {
        "model": model,
        "sparsify": list(conditions.values()),
        "evaluate": {
            "tasks": ",".join(asked), "languages": ",".join(languages), "data": str(folder), "limit": limit,
            "shots": SHOTS, "new_tokens": new_tokens, "separator": separator, "available": True, "reference": True,
            "device": device, "dtype": "float32",
        },
    }  # fmt: skip
    done = sweep(recipe, out, processes=processes, ray=ray, report=report)
    return tabulated(f"kim2024: {model}", done, tuple(conditions), notes)


def tabulated(title: str, done: Sweep, conditions: Sequence[Condition], notes: Sequence[str]) -> Reproduction:
    """The tables of the paper, of the first sparsity and seed; then what tells conditions apart, and what varies."""
    main = [
        (condition, run)
        for condition, run in zip(conditions, done.runs, strict=True)
        if not condition.sparsity or (condition.sparsity, condition.seed) == _first(conditions, condition.kind)
    ]
    names = tuple(condition.kind for condition, _ in main)
    shown = Sweep(done.folder, tuple(run for _, run in main))
    sheets = [*_sheets(shown, names), *changes(shown, names, TABLES), *against_others(shown, names, TABLES)]
    sheets += [*over_sparsities(done, conditions, TABLES), *over_seeds(done, conditions, TABLES)]
    return Reproduction(title, tuple(sheets), (*notes, *_notes(done, tuple(map(str, conditions)))), done)


def _first(conditions: Sequence[Condition], kind: str) -> tuple[float, int | None]:
    return next((each.sparsity, each.seed) for each in conditions if each.kind == kind)


def make_conditions(
    folder: Path,
    code: Path | None,
    *,
    sparsities: Sequence[float] = (SPARSITY,),
    seeds: Sequence[int] = (0,),
    prompts: int = PROMPTS,
) -> tuple[dict[Condition, Mapping[str, Any] | None], list[str]]:
    """Conditions as entries of a recipe, those of the main tables first, and notes on what was left out or made smaller."""
    kept, notes = _translation_sets(folder, prompts)
    found = next(iter(sorted(folder.glob("humaneval/*.jsonl*"))), None) if code is None else code
    if found is None:
        notes.append("left out: code-refined, which needs source code (--code)")
    avoided = None if found is None else _code_set(found, prompts)
    made: dict[Condition, Mapping[str, Any] | None] = {Condition("unpruned", 0.0, None): None}
    for number, seed in enumerate(seeds):
        for sparsity in sparsities:
            for kind, entry in _entries(kept, avoided, seed).items():
                if kind != "magnitude" or not number:  # nothing of it is drawn
                    own = None if kind == "magnitude" else seed
                    made[Condition(kind, sparsity, own)] = {"sparsity": sparsity, **entry}
    return made, notes


def _entries(
    kept: Mapping[str, Mapping[str, Any]], avoided: Mapping[str, Any] | None, seed: int
) -> dict[str, dict[str, Any]]:
    """Every kind of pruning by name. Seed 0 lays text out as the paper does, in the order of the file; others shuffle it."""
    drawn: dict[str, Any] = {"order": "shuffled", "seed": seed} if seed else {}
    made: dict[str, dict[str, Any]] = {name: {"keep": {**keep, **drawn}} for name, keep in kept.items()}
    first = next(iter(kept.values()), None)
    if first is not None:
        made["mono en"] = {"keep": {**first, "kind": "mono", "languages": "en", **drawn}}
    made["random"] = {"weights_by": "random", **({"seed": seed} if seed else {})}
    made["magnitude"] = {"weights_by": "magnitude"}
    if first is not None and avoided is not None:
        made["code-refined"] = {"keep": {**first, **drawn}, "avoid": {**avoided, **drawn}}
    return made


def _translation_sets(folder: Path, prompts: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Demonstrations of translation by name; of a data set without lines apart they are its second half."""
    from langslice.errors import NoDataError
    from langslice.evaluation.options import LINES
    from langslice.evaluation.parallel import read_parallel

    kept: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for source in PAIRS:
        try:
            text = read_parallel("demonstrations", [source, "en"], folder)
        except NoDataError as error:
            notes.append(f"left out: mt {source}-en, {error.message.splitlines()[0]}")
            continue
        place, lines = folder, text.shots
        if not lines:
            place = folder / "demonstrations"
            half = len(text.lines["en"]) // 2
            lines = {language: found[half:] for language, found in text.lines.items()}
            write_lines(place / "parallel", lines)
            notes.append(f"demonstrations are the second half of {text.name}, from line {half + 1:,} on")
            if half < LINES["translation"]:
                notes.append(
                    f"of {text.name}, lines after the first {half} are also translated unless --limit is smaller"
                )
        # After each prompt one pair is skipped.
        count = min(prompts, (len(lines["en"]) + 1) // (SHOTS + 1))
        if count < prompts:
            notes.append(
                f"mt {source}-en: {count} prompts instead of {prompts}; {text.name} has {len(lines['en'])} lines"
            )
        kept[f"mt {source}-en"] = {"kind": "mt", "languages": f"{source},en", "data": str(place), "count": count}
    return kept, list(dict.fromkeys(notes))


def _code_set(path: Path, prompts: int) -> dict[str, Any]:
    """Demonstrations of code; HumanEval's are its prompts."""
    field = {"text_field": "prompt"} if "jsonl" in path.name else {}
    return {"kind": "code", "path": str(path), "count": prompts, **field}


def _rankc_task(folder: Path, tested: Sequence[str]) -> str:
    """RankC is over XNLI; over XCOPA where XNLI is there in fewer than two languages."""
    from langslice.evaluation.choice_tasks import load_task
    from langslice.evaluation.data_sets import find_file

    def languages(name: str) -> int:
        sources = load_task(name).sources
        return sum(
            any(
                s.file and (not s.languages or code in s.languages) and find_file(folder, s.file, code) for s in sources
            )
            for code in tested
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
