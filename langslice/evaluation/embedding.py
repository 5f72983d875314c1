"""Sentence embeddings, through sentence-transformers: similarity that people judged, and finding a translation.

A folder without modules.json is used as sentence-transformers uses it: the mean of the last hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.data_sets import DataSource, missing_column, read_source
from langslice.evaluation.measurement import Measurement, mean_of

_KORSTS = DataSource(
    {"first": "sentence1", "second": "sentence2"}, "score", file="kornlu/sts-test.tsv", languages=("ko",)
)
_STSB = ("genre", "filename", "year", "id", "score", "sentence1", "sentence2")
STS_SOURCES: Final = (
    _KORSTS,
    DataSource({"first": "sentence1", "second": "sentence2"}, "score", file="sts/test.{language}.tsv"),
    DataSource({"first": "sentence1", "second": "sentence2"}, "score", file="sts/test.{language}.jsonl"),
    DataSource(
        {"first": "sentence1", "second": "sentence2"}, "score", file="stsbenchmark/sts-test.tsv", languages=("en",),
        header=_STSB,
    ),
    DataSource(
        {"first": "sentence1", "second": "sentence2"}, "score", hub="mteb/sts17-crosslingual-sts",
        config="{language}-{language}",
    ),
)  # fmt: skip
"""Pairs with a judged similarity: KorSTS, the STS benchmark, and STS 2017 on the hub."""


def read_pairs(
    language: str, data: Path | None, *, limit: int | None = None
) -> tuple[list[str], list[str], np.ndarray]:
    """First sentences, second sentences, and their (n,) judged similarity.

    Raises  TaskError for a language without data, a missing column, or a score that is no number
    """
    source, rows, place = read_source(STS_SOURCES, "sts", language, data)
    rows = rows[:limit]
    for name in (*source.columns.values(), source.label):
        if name not in rows[0]:
            raise missing_column(place, name, rows[0])
    try:
        gold = np.array([float(row[source.label]) for row in rows])
    except ValueError as error:
        raise TaskError(f"{place}: {source.label} is not a number: {error}", "repair the file") from error
    first, second = ([str(row[source.columns[side]]) for row in rows] for side in ("first", "second"))
    return first, second, gold


def load_encoder(folder: Path, *, device: str) -> Any:
    """The folder as sentence-transformers opens it.

    Raises  TaskError without the package, or when it cannot open the folder
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise TaskError(
            "sts and bitext need the package `sentence-transformers`",
            'pip install "langslice[sentence-transformers]"',
        ) from error
    from langslice.model.transformers_classes import quiet_transformers

    with quiet_transformers():
        try:
            return SentenceTransformer(str(folder), device=device, local_files_only=True)
        except Exception as error:  # modules raise anything
            raise TaskError(
                f"{folder}: sentence-transformers cannot open it\n  {error}", "is it an encoder?"
            ) from error


def embed(encoder: Any, texts: Sequence[str]) -> np.ndarray:
    """(n, size) float64 embeddings of length 1; each distinct text is read once."""
    distinct = list(dict.fromkeys(texts))
    vectors = encoder.encode(distinct, convert_to_numpy=True, show_progress_bar=False, batch_size=32)
    vectors = np.asarray(vectors, dtype=np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    place = {text: number for number, text in enumerate(distinct)}
    return np.asarray(vectors[[place[text] for text in texts]])


def measure_sts(
    encoder: Any, language: str, first: Sequence[str], second: Sequence[str], gold: np.ndarray
) -> list[Measurement]:
    """Correlation of cosine similarity with judged similarity, of ranks (Spearman) and of values (Pearson).

    gold  (n,) float64
    """
    vectors = embed(encoder, [*first, *second])
    cosine = (vectors[: len(first)] * vectors[len(first) :]).sum(1)
    items = np.stack([cosine, gold], axis=1)
    return [Measurement("sts", language, metric, metric, items) for metric in ("spearman", "pearson")]


def measure_bitext(
    encoder: Any, pair: tuple[str, str], first: Sequence[str], second: Sequence[str]
) -> list[Measurement]:
    """Share of sentences whose nearest neighbour in the other language, by cosine, is their translation; both ways.

    first, second  parallel lines; a line that is several times in its language counts right by any of its places
    """
    one, two = embed(encoder, first), embed(encoder, second)
    similarity = one @ two.T  # (n, n)
    found = []
    for name, matrix, targets in ((pair, similarity, second), (pair[::-1], similarity.T, first)):
        right = [float(targets[int(best)] == targets[row]) for row, best in enumerate(matrix.argmax(1))]
        found.append(mean_of("bitext", "-".join(name), "accuracy", right, chance=1 / len(first)))
    return found
