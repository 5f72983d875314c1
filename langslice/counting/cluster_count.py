"""Count a corpus on a cluster: each task reads and counts one part of it, and the sums are added here.

A part is a stretch of whole lines of a text or jsonl file, or a file that cannot be entered in the middle. Tasks read the
corpus themselves, so it must lie where every machine sees it under the same name; the tokenizer is sent along. Counts are
whole numbers: they do not depend on how the corpus was split, on how many machines there were, or on which of them died.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from langslice.cluster.ray_cluster import connected, run_tasks
from langslice.corpus.sources import CorpusFile, HubDataset, find_corpora
from langslice.corpus.units import read_part
from langslice.counting.count import count_tokens
from langslice.counting.counts import TokenCounts, merge_counts
from langslice.errors import ClusterError, CorpusError
from langslice.progress import Report
from langslice.tokenizer import SourceTokenizer, open_tokenizer

PART_BYTES = 256 << 20  # some minutes of one core


@dataclass(frozen=True)
class CorpusPart:
    """Bytes `start` to `end` of a source, moved on to whole lines; a source that is read as a whole has 0 and None."""

    source: CorpusFile | HubDataset
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class _Tokenizer:
    """What a task needs to open a tokenizer: its files by name, and what `open_tokenizer` is told."""

    files: tuple[tuple[str, bytes], ...]
    model_type: str | None
    rows: int | None


def count_on_cluster(
    tokenizer: SourceTokenizer,
    corpus: Sequence[str],
    address: str,
    *,
    text_field: str,
    languages: Sequence[str],
    model_type: str | None,
    rows: int | None,
    processes: int | None,
    report: Report,
    part_bytes: int = PART_BYTES,
) -> TokenCounts:
    """Do what `job.count` does, on a Ray cluster.

    address     see `langslice.cluster.ray_cluster.connected`
    processes   CPUs of a local cluster
    part_bytes  of a task
    Raises      what counting raises, ClusterError when a part was lost as often as it was tried
    """
    sources, left_out = find_corpora(corpus)
    if left_out:
        report(f"left out, of unknown type: {', '.join(map(str, left_out[:5]))}", 0, 0)
    sources = [_absolute(source) for source in sources]
    parts = [part for source in sources for part in parts_of(source, part_bytes)]
    total, done = sum(map(_size, parts)), 0
    with connected(address, cpus=processes) as ray:
        packed = ray.put(_packed(tokenizer, model_type, rows))
        counted: TokenCounts | None = None
        units: dict[CorpusFile | HubDataset, int] = dict.fromkeys(sources, 0)
        jobs = ((part, (packed, part, text_field, tuple(languages))) for part in parts)
        for outcome in run_tasks(ray, count_part, jobs):
            if outcome.lost:
                raise ClusterError(
                    f"{_label(outcome.key)} could not be counted\n  {outcome.lost}", "its machine may lack memory"
                )
            done += _size(outcome.key)
            report("counting on the cluster", done, total)
            if outcome.value is not None:
                units[outcome.key.source] += outcome.value.units
                counted = outcome.value if counted is None else merge_counts([counted, outcome.value], [1.0, 1.0])
    empty = [source for source, count in units.items() if not count]
    if empty or counted is None:
        raise CorpusError(f"{_label(CorpusPart(empty[0]))}: holds no text", "leave it out, or check --text-field")
    return replace(counted, tokens=tokenizer.tokens)


def parts_of(source: CorpusFile | HubDataset, part_bytes: int) -> Iterator[CorpusPart]:
    """Split a source into parts; a compressed file, parquet and a dataset of the hub stay whole."""
    if isinstance(source, HubDataset) or source.compression or source.format == "parquet":
        yield CorpusPart(source)
        return
    size = source.path.stat().st_size
    for start in range(0, max(size, 1), part_bytes):
        yield CorpusPart(source, start, min(start + part_bytes, size))


def count_part(packed: _Tokenizer, part: CorpusPart, text_field: str, languages: Sequence[str]) -> TokenCounts | None:
    """Count one part, on whichever machine this is; None where no text begins in it."""

    def read() -> Iterator[str]:
        units: Iterator[str] = read_part(part.source, part.start, part.end, text_field)
        if languages:
            from langslice.corpus.language_id import keep_languages

            units = keep_languages(units, languages)
        return units

    if next(read(), None) is None:
        return None
    counts = [count_tokens(side, read(), processes=1) for side in _opened(packed).sides]
    merged = merge_counts(counts, [1.0] * len(counts)) if len(counts) > 1 else counts[0]
    return replace(merged, tokens=())  # hundreds of thousands of strings, the same for each part


@lru_cache(maxsize=2)
def _opened(packed: _Tokenizer) -> SourceTokenizer:
    """The tokenizer in this process, opened once."""
    with tempfile.TemporaryDirectory(prefix="langslice-") as name:
        folder = Path(name)
        for file, content in packed.files:
            (folder / file).write_bytes(content)
        tokenizer = open_tokenizer(folder, model_type=packed.model_type, rows=packed.rows)
        for side in tokenizer.sides:
            side.encode(["a"])  # loads what is loaded on first use, while the folder exists
    return tokenizer


def _packed(tokenizer: SourceTokenizer, model_type: str | None, rows: int | None) -> _Tokenizer:
    names = [*tokenizer.files, "config.json"]
    files = tuple(
        (name, (tokenizer.folder / name).read_bytes()) for name in names if (tokenizer.folder / name).is_file()
    )
    return _Tokenizer(files, model_type, rows)


def _absolute(source: CorpusFile | HubDataset) -> CorpusFile | HubDataset:
    """The source as a task in another folder finds it."""
    return source if isinstance(source, HubDataset) else replace(source, path=source.path.absolute())


def _size(part: CorpusPart) -> int:
    if isinstance(part.source, HubDataset):
        return 0
    return (part.source.path.stat().st_size if part.end is None else part.end) - part.start


def _label(part: CorpusPart) -> str:
    if isinstance(part.source, HubDataset):
        return part.source.name
    return f"{part.source.path}" + (f" from byte {part.start:,}" if part.start else "")
