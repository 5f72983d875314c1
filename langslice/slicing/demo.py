"""`langslice demo`: the main job on the model that comes with the package, offline, in half a minute."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from langslice.evaluation.perplexity import Perplexity, load_causal, perplexity
from langslice.evaluation.speed import Speed, compare_speed, load_libraries
from langslice.mini import heldout_languages, heldout_text, mini_model_path
from langslice.options import Choice
from langslice.progress import Report, silent
from langslice.slicing import main as job
from langslice.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from langslice.slicing.inspect import Inspection
    from langslice.slicing.result import SliceResult

LANGUAGES = ("ko", "en")
# What else can be sliced, on top of the languages; heads and neurons by scores on text that is not measured on.
FURTHER: tuple[tuple[str, Choice], ...] = (
    ("one layer of six (--drop-layers 3)", {"drop_layers": "3"}),
    ("a quarter of the heads (--heads-sparsity 0.25)", {"heads_sparsity": 0.25, "uniform": True}),
    ("a fifth of the neurons (--neurons-sparsity 0.2)", {"neurons_sparsity": 0.2, "uniform": True}),
    ("30% of the weights to zero (--sparsity 0.3)", {"sparsity": 0.3, "weights_by": "magnitude"}),
)
_LINES = 40


@dataclass(frozen=True)
class LanguageQuality:
    """One language before and after.

    covered     share of its token occurrences that are kept
    before      the original, over its whole vocabulary
    restricted  the original, its probability shared out among kept tokens; None where a line needs dropped ones
    after       the slice
    """

    language: str
    covered: float
    before: Perplexity
    restricted: Perplexity | None
    after: Perplexity


@dataclass(frozen=True)
class FurtherCut:
    """The slice with one thing more taken away.

    name           what
    parameters     of the result; zeroed weights count
    size_bytes     on disk
    bits_per_byte  language -> on held-out sentences
    """

    name: str
    parameters: int
    size_bytes: int
    bits_per_byte: Mapping[str, float]


@dataclass(frozen=True)
class Demo:
    """What the demo measured; `report` is the page that it wrote, where the slice is kept.

    seconds  what was done -> time that it took
    """

    inspection: Inspection
    result: SliceResult
    disk: Mapping[str, int]
    speed: Mapping[str, Speed]
    quality: Sequence[LanguageQuality]
    further: Sequence[FurtherCut]
    report: Path | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def run_demo(out: str | Path | None = None, *, report: Report = silent) -> Demo:
    """Slice the packaged model to Korean and English, verify it, and measure both.

    out  folder for the slice; a temporary one, removed at the end, unless given
    """
    seconds: dict[str, float] = {}
    if out is not None:
        measured = _run(Path(out), report, seconds)
        with _timed("the report", seconds, report):
            from langslice.reporting import write_report

            return replace(measured, report=write_report(out))
    with tempfile.TemporaryDirectory(prefix="langslice-demo-") as folder:
        return _run(Path(folder) / "mini-ko-en", report, seconds)


@contextmanager
def _timed(what: str, seconds: dict[str, float], report: Report) -> Iterator[None]:
    """Say what is done, and add how long it took."""
    report(what, 0, 0)
    started = perf_counter()
    yield
    seconds[what] = perf_counter() - started


def _run(out: Path, report: Report, seconds: dict[str, float]) -> Demo:
    source = mini_model_path()
    with _timed("loading torch and transformers", seconds, report):
        load_libraries()
    with _timed("the look at the model", seconds, report):
        inspection = job.inspect(source, languages=[",".join(LANGUAGES), "ar,fr"], report=report)
    with _timed("the slice and its verification", seconds, report):
        result = job.slice(source, out, languages=LANGUAGES, report=report)
    with _timed("speed and memory, in processes of their own", seconds, report):
        speed = compare_speed({"before": source, "after": out}, rounds=1)
    with _timed("perplexity", seconds, report):
        quality = measure_quality(source, out, result.plan.kept)
    disk = {"before": _size(source), "after": _size(out)}
    with _timed("four further slices", seconds, report):
        further = [_further(out, name, choice, report) for name, choice in FURTHER]
    return Demo(inspection, result, disk, speed, quality, further, seconds=seconds)


def _further(slice_folder: Path, name: str, choice: Choice, report: Report) -> FurtherCut:
    """Cut the slice once more, and measure what is left of the kept languages."""
    report(f"slicing {name}", 0, 0)
    with tempfile.TemporaryDirectory(prefix="langslice-demo-") as folder:
        out = Path(folder) / "cut"
        if "heads_sparsity" in choice or "neurons_sparsity" in choice:
            choice = {**choice, "calibration": _score_texts(Path(folder))}
        result = job.slice(slice_folder, out, verify=False, **choice)
        model = load_causal(out)
        bits = {
            language: perplexity(out, heldout_text(language)[:_LINES], model=model).bits_per_byte
            for language in LANGUAGES
        }
        parameters = sum(after for _, after in result.parameters.values())
        return FurtherCut(name, parameters, _size(out), bits)


def _score_texts(folder: Path) -> list[str]:
    """Files of held-out lines after those that are measured."""
    texts = []
    for language in LANGUAGES:
        path = folder / f"{language}.txt"
        path.write_text("\n".join(heldout_text(language)[_LINES : 2 * _LINES]), encoding="utf-8")
        texts.append(f"{language}={path}")
    return texts


def measure_quality(source: Path, out: Path, kept: np.ndarray) -> list[LanguageQuality]:
    """Perplexity of source and slice on the packaged held-out sentences of every language.

    kept  (n,) int64 old ids of the kept tokens
    """
    tokenizer = open_tokenizer(source)
    before, after = load_causal(source), load_causal(out)
    found = []
    for language in heldout_languages():
        lines = heldout_text(language)[:_LINES]
        tokens = [np.asarray(ids) for ids in tokenizer.encode(lines)]
        inside = [np.isin(ids, kept) for ids in tokens]
        covered = float(np.concatenate(inside).mean())
        found.append(
            LanguageQuality(
                language,
                covered,
                perplexity(source, lines, model=before),
                perplexity(source, lines, model=before, keep=kept) if covered == 1.0 else None,
                perplexity(out, lines, model=after),
            )
        )
    return found


def _size(folder: Path) -> int:
    """Bytes of a model folder, without the record that a slice carries next to it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "slice.json")
