"""What the benchmarks on trained models share: where models and text are, steps that are kept, commands that are measured.

A step's result is JSON below WORK, so that a page that was stopped goes on at the step where it was; `--again` in
run_all.py forgets them. Pages are written to benchmarks/results/real/, each from a JSON file next to it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/real"
WORK = ROOT / "benchmarks" / "work" / "real"
SEED = 0
# Write a page of what has been measured so far, and measure nothing.
ONLY_KEPT = "--kept" in sys.argv
# Second halves to choose from, and words of a line that is too short to be parted.
CHOSEN_FROM, TOO_FEW = 4, 5
# The names of NTREX-128's files.
NTREX = {
    "ar": "arb", "de": "deu", "en": "src.eng", "es": "spa", "fr": "fra", "id": "ind", "it": "ita", "ja": "jpn", "ko": "kor",
    "pt": "por-BR", "ru": "rus", "sw": "swa", "th": "tha", "tr": "tur", "vi": "vie", "zh": "zho-CN",
}  # fmt: skip
UDHR = {"en": "eng", "ko": "kor", "fr": "fra"}


def models() -> Path:
    """Folder of trained models; `make models` fills it."""
    return Path(os.environ.get("LANGSLICE_MODELS", ROOT / "../models")).resolve()


def data() -> Path:
    """Folder of real text."""
    return Path(os.environ.get("LANGSLICE_ASSETS", ROOT / "../shared/assets")).resolve() / "data"


def ntrex(language: str) -> list[str]:
    """All lines of NTREX-128, in order, so that those of two languages are parallel."""
    code = NTREX[language]
    name = f"newstest2019-{code}.txt" if code.startswith("src.") else f"newstest2019-ref.{code}.txt"
    return (data() / "ntrex128" / name).read_text(encoding="utf-8-sig").splitlines()


def second_halves(language: str, numbers: Sequence[int], count: int) -> list[Any]:
    """Which of CHOSEN_FROM second halves of NTREX-128 lines goes on from a first half; the wrong ones are about as long.

    A question that a small model answers far more often than by chance, so that pruning has something to lose; for languages
    that part words by spaces.

    numbers  of the lines to take them from
    Returns  at most `count` Examples, the right candidate's place evenly spread
    """
    from langslice.evaluation.choice_tasks import Example

    text = ntrex(language)
    lines = [words for at in numbers if len(words := text[at].split(" ")) > TOO_FEW]
    parted = [(" ".join(words[: len(words) // 2]), " " + " ".join(words[len(words) // 2 :])) for words in lines]
    # Some lines end alike: only one of them is asked, because the end of another would be right too.
    every = sorted(
        {end: (beginning, end) for beginning, end in parted}.values(), key=lambda each: len(each[1].encode())
    )
    groups = [every[at : at + CHOSEN_FROM] for at in range(0, len(every) - CHOSEN_FROM + 1, CHOSEN_FROM)]
    # Groups ascend by length, and so do the candidates of each: every place is asked as often.
    answers = [(at, (at + turn) % CHOSEN_FROM) for turn in range(CHOSEN_FROM) for at in range(len(groups))]
    return [Example(groups[at][own][0], tuple(end for _, end in groups[at]), own, "") for at, own in answers[:count]]


def udhr(language: str) -> list[str]:
    """Paragraphs of the Universal Declaration of Human Rights."""
    from xml.etree import ElementTree as ET

    tree = ET.parse(data() / "udhr" / f"udhr_{UDHR[language]}.xml")
    return [text for node in tree.iter() if node.tag.endswith("para") and (text := "".join(node.itertext()).strip())]


def step(page: str, name: str, make: Callable[[], Any], *, only_kept: bool = ONLY_KEPT) -> Any:
    """The result of a step, made now or kept from an earlier run; with --kept, None where it was never made."""
    path = WORK / page / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    if only_kept:
        return None
    print(f"{page}: {name} …", flush=True)
    started = time.monotonic()
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, ensure_ascii=False, indent=1))
    partial.rename(path)
    print(f"{page}: {name}, {time.monotonic() - started:.0f} s", flush=True)
    return json.loads(path.read_text())


def langslice(*arguments: Any) -> dict[str, float]:
    """Run a command of langslice by itself: CPU and wall seconds, and the peak of its memory in MB.

    Raises  RuntimeError when it fails, with what it said
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "langslice", *map(str, arguments)], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"langslice {' '.join(map(str, arguments))}: exit code {process.returncode}\n{said}")
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(time.monotonic() - started, 1),
        "peak_mb": usage.ru_maxrss / 1000,
    }


def sliced(page: str, name: str, model: str, *options: Any) -> tuple[Path, dict[str, Any]]:
    """A verified slice of a model, made once, and what making it took and gave."""
    out = WORK / page / name

    def make() -> dict[str, Any]:
        out.parent.mkdir(parents=True, exist_ok=True)
        measured = langslice("slice", models() / model, *options, "-o", out, "--overwrite", "--quiet")
        record = json.loads((out / "slice.json").read_text())
        return {
            **measured,
            **sizes(models() / model, out),
            "verified": bool(record.get("proof") and record["proof"]["passed"]),
        }

    found = step(page, f"{name}-slice", make)
    if not ONLY_KEPT and not (out / "slice.json").is_file():
        (WORK / page / f"{name}-slice.json").unlink()
        return sliced(page, name, model, *options)
    return out, found


def sizes(*folders: Path) -> dict[str, Any]:
    """Rows, parameters and MB of the weights of a source and its slice."""
    from langslice.evaluation.main import describe
    from langslice.model.checkpoint import open_checkpoint

    found = {}
    for role, folder in zip(("before", "after"), folders, strict=True):
        said = describe(open_checkpoint(folder))
        found[role] = {
            "rows": said["vocabulary"],
            "parameters": said["parameters"],
            "mb": round(said["size_bytes"] / 1e6, 1),
        }
    return found


def evaluated(page: str, name: str, model: Path, out: Path | None, *options: Any) -> list[dict[str, Any]]:
    """Scores of `langslice evaluate`, made once."""

    def make() -> Any:
        results = WORK / page / f"{name}-results.json"
        langslice("evaluate", model, *([] if out is None else [out]), *options, "-o", results, "--overwrite", "--quiet")
        return json.loads(results.read_text())["scores"]

    found: list[dict[str, Any]] = step(page, name, make)
    return found


def machine() -> str:
    """Under a page: what it was run on, and when."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers"))
    return (
        f"{os.cpu_count()} cores ({platform.machine()}) shared with other work; Python {platform.python_version()}, {libraries}; "
        f"{date.today().isoformat()}. Seed {SEED}; intervals are 95% of 1,000 bootstrap resamples of the items, differences paired."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """A table in Markdown, numbers to the right."""
    rule = ["---" if at < text_columns else "---:" for at in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"


def score_row(score: Mapping[str, Any], digits: int = 4) -> list[str]:
    """n, original, slice, and their difference with its interval."""

    def value(of: Mapping[str, Any] | None) -> str:
        return "–" if of is None or of["value"] is None else f"{of['value']:.{digits}f}"

    change = score["difference"]
    difference = "–"
    if change is not None and change["value"] is not None:
        difference = f"{change['value']:+.{digits}f} [{change['low']:+.{digits}f}, {change['high']:+.{digits}f}]"
    return [f"{score['original']['n']:,}", value(score["original"]), value(score["slice"]), difference]


def paired_change(first: Any, second: Any) -> Any:
    """Second measurement minus first by the paired bootstrap; None where one is missing, or their items differ in number."""
    from langslice.evaluation.statistics import difference

    if first is None or second is None or first.items.shape != second.items.shape:
        return None
    return difference(first.statistic, first.items, second.items)


def beside_chance(whole: Any, chance: float) -> str:
    """Says where a whole model cannot be told from chance, so that no slice of it can look better or worse."""
    from langslice.evaluation.statistics import interval

    bounds = None if whole is None else interval(whole.statistic, whole.items)
    if bounds is None or not bounds.low <= chance <= bounds.high:
        return ""
    return " The whole model's own interval holds chance: it has little here to lose or to gain."


def change_text(change: Any, digits: int = 3) -> str:
    """A paired difference with its interval and p; a dash where there is none."""
    if change is None or change.value != change.value:
        return "–"
    return f"{change.value:+.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}], p {change.p:.3f}"


def value_text(measurement: Any, digits: int = 3) -> str:
    """The score of a measurement with its interval; a dash where there is none."""
    from langslice.evaluation.statistics import interval

    if measurement is None:
        return "–"
    bounds = interval(measurement.statistic, measurement.items)
    return f"{measurement.value:.{digits}f} [{bounds.low:.{digits}f}, {bounds.high:.{digits}f}]"


def write_page(name: str, document: Mapping[str, Any], text: str) -> None:
    """Write a page and the JSON that it was made from."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text.rstrip("\n") + "\n")
    print(f"wrote {RESULTS / name}.md", flush=True)
