"""Parallel lines, for perplexity, translation, retrieval and prompts: NTREX-128, FLORES-200, or the package's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from langslice.errors import NoDataError, TaskError
from langslice.evaluation.data_sets import DataSource, find_file, read_source

# Patterns below a data folder for test lines and, where a set is published apart, lines for demonstrations.
LAYOUTS: Final = (
    ("NTREX-128", "ntrex128/newstest2019-ref.{language}.txt", ""),
    ("NTREX-128", "NTREX-128/newstest2019-ref.{language}.txt", ""),
    ("NTREX-128", "ntrex128/newstest2019-src.{language}.txt", ""),
    ("FLORES-200", "flores200_dataset/devtest/{flores}.devtest", "flores200_dataset/dev/{flores}.dev"),
    ("FLORES-200", "flores200/devtest/{flores}.devtest", "flores200/dev/{flores}.dev"),
    ("text", "parallel/{language}.txt", ""),
)
_HUB: Final = "openlanguagedata/flores_plus"


@dataclass(frozen=True)
class ParallelText:
    """Lines that say the same, line by line.

    name   of the data set
    lines  language -> lines
    shots  language -> lines for demonstrations; empty where the set has none apart
    """

    name: str
    lines: dict[str, list[str]]
    shots: dict[str, list[str]]


def read_parallel(task: str, languages: Sequence[str], data: Path | None, *, hub: bool = False) -> ParallelText:
    """Parallel lines of every language, all from one data set.

    data    local folder; without one, the held-out sentences that come with the package
    hub     without a folder, ask the hub for FLORES-200 instead
    Raises  TaskError when no data set has all languages, or their lines are not equally many
    """
    if data is None:
        return _from_hub(task, languages) if hub else _packaged(task, languages)
    if not data.is_dir():
        raise TaskError(f"--data {data} is not a folder", "name the folder that holds the data sets")
    best: dict[str, Path] = {}
    for name in dict.fromkeys(name for name, _, _ in LAYOUTS):
        found, shots = _files(data, name, languages)
        if len(found) == len(languages):
            return _checked(task, ParallelText(name, _read(found), _read(shots) if len(shots) == len(found) else {}))
        best = max(best, found, key=len)
    missing = [language for language in languages if language not in best]
    raise NoDataError(
        f"task {task}: no parallel text in language {', '.join(missing)}\n  below {data}\n"
        f"  looked for {', '.join(pattern for _, pattern, _ in LAYOUTS)}",
        "add the file, or leave the language out",
    )


def read_lines(
    task: str, languages: Sequence[str], data: Path | None, *, hub: bool = False, limit: int | None = None
) -> dict[str, list[str]]:
    """Lines of every language, empty ones left out; they need not be parallel, nor of one data set.

    limit   the first so many
    Raises  TaskError for a language without lines
    """
    found: dict[str, list[str]] = {}
    for language in languages:
        text = read_parallel(task, [language], data, hub=hub)
        found[language] = [line for line in text.lines[language] if line.strip()][:limit]
        if not found[language]:
            raise TaskError(f"task {task}: {text.name} has no lines in language {language}", "leave the language out")
    return found


def _files(data: Path, name: str, languages: Sequence[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    found: dict[str, Path] = {}
    shots: dict[str, Path] = {}
    for layout, pattern, shot_pattern in LAYOUTS:
        if layout != name:
            continue
        for language in languages:
            path = find_file(data, pattern, language) if language not in found else None
            if path is None:
                continue
            found[language] = path
            shot_path = find_file(data, shot_pattern, language) if shot_pattern else None
            if shot_path is not None:
                shots[language] = shot_path
    return found, shots


def _read(files: dict[str, Path]) -> dict[str, list[str]]:
    return {language: path.read_text(encoding="utf-8-sig").splitlines() for language, path in files.items()}


def _packaged(task: str, languages: Sequence[str]) -> ParallelText:
    from langslice.mini import heldout_languages, heldout_text

    missing = [language for language in languages if language not in heldout_languages()]
    if missing:
        raise NoDataError(
            f"task {task}: no data in language {', '.join(missing)}\n"
            f"  the sentences that come with the package are in {', '.join(heldout_languages())}",
            "name a folder with NTREX-128 or FLORES-200 with --data, or use --hub",
        )
    return ParallelText("sentences of the package", {code: heldout_text(code) for code in languages}, {})


def _from_hub(task: str, languages: Sequence[str]) -> ParallelText:
    found: dict[str, dict[str, list[str]]] = {}
    for split in ("devtest", "dev"):
        source = DataSource({}, hub=_HUB, config="{flores}", split=split)
        found[split] = {
            code: [str(row["text"]) for row in read_source([source], task, code, None)[1]] for code in languages
        }
    return _checked(task, ParallelText("FLORES-200", found["devtest"], found["dev"]))


def _checked(task: str, text: ParallelText) -> ParallelText:
    for lines in (text.lines, text.shots):
        counts = {language: len(found) for language, found in lines.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{language} {count}" for language, count in counts.items())
            raise TaskError(f"task {task}: {text.name} is not parallel\n  lines: {listed}", "repair the files")
    return text
