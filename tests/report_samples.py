"""A slice with every kind of cut, and what other commands would have measured of it, for the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import langslice
from langslice.features import Magnitudes
from langslice.features.overlaps import overlap
from langslice.features.tables import write_magnitudes, write_overlap, write_rows
from langslice.reporting.slice_folder import open_slice
from langslice.scoring.table import Scores

SOURCE_CARD = """---
license: other
license_name: tiny-licence
license_link: LICENSE
language: [ko, en, fr]
pipeline_tag: text-generation
---
# The source
It knows everything.
"""
CUT = {
    "languages": "ko,en",
    "drop_layers": "1",
    "drop_heads": "0:0,1",
    "drop_neurons": "2:0-9",
    "sparsity": 0.5,
    "weights_by": "magnitude",
    "output_style": "sliced",
}


def make_slice(source: Path, out: Path, **choice) -> Path:
    """Slice a tiny model in every way."""
    langslice.slice(source, out, **{**CUT, **choice})
    return out


def write_results(folder: Path, path: Path, *, parameters: int | None = None) -> Path:
    """Results as `evaluate` writes them, of this slice unless other parameters are given."""
    report, _, _ = open_slice(folder)
    rows = report.vocabulary.rows if report.vocabulary else None
    models = {
        "original": {"name": "source", "parameters": report.parameters.before, "vocabulary": rows.before},
        "slice": {"name": "cut", "parameters": parameters or report.parameters.after, "vocabulary": rows.after},
    }
    value = {"value": 2.5, "n": 10, "low": 2.25, "high": 2.75}
    worse = {"value": 3.5, "n": 10, "low": 3.25, "high": 3.75}
    far = {"value": 250.0, "n": 10, "low": 240.0, "high": 260.0}
    change = {"value": 1.0, "low": 0.5, "high": 1.5, "p": 0.001}
    unsure = {"value": 1.0, "low": -0.5, "high": 1.5, "p": 0.4}
    once = {"value": 4000.0, "n": 1, "low": None, "high": None}
    scores = [
        _score("perplexity", "ko", "bits per byte", "lower", value, worse, change),
        _score("perplexity", "en", "bits per byte", "lower", value, worse, unsure),
        _score("perplexity", "fr", "bits per byte", "lower", value, far, change),
        _score("translation", "ko-en", "BLEU", "higher", worse, value, change),
        _score(
            "speed",
            "",
            "prefill, tokens per second",
            "higher",
            {**value, "value": 900.0},
            {**value, "value": 950.0},
            None,
        ),
        _score("size", "", "weights, bytes", "lower", once, once, None),
    ]
    document = {
        "format": "langslice-evaluation/1", "models": models, "scores": scores, "notes": {"slice": ["run as it is"]},
        "settings": {"data": None, "hub": False, "dtype": "float32"},
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def _score(task, language, metric, better, original, sliced, difference):
    return {
        "task": task, "language": language, "metric": metric, "better": better, "original": original, "slice": sliced,
        "difference": difference, "details": {"original": {"device": "cpu"}},
    }  # fmt: skip


def write_scores(path: Path, kind: str = "heads", *, layers: int = 3, count: int = 4) -> Path:
    """Scores of the tiny model's heads, neurons or layers; no model follows them."""
    layer = np.repeat(np.arange(layers, dtype=np.int32), count)
    index = np.tile(np.arange(count, dtype=np.int32), layers)
    place = "layers.self" if kind == "heads" else "layers"
    size = layers * count
    Scores(
        kind, "l2", np.full(size, place), layer, index, np.full(size, ""), np.linspace(0.1, 1, size), np.zeros(size),
        "source", "0" * 64, ("ko=ko.txt",), (0, 1),
    ).save(path)  # fmt: skip
    return path


def write_features(folder: Path) -> Path:
    """Tables as `features` writes them, of two conditions, three layers and 130 dimensions."""
    folder.mkdir()
    values = np.abs(np.random.default_rng(0).normal(size=(2, 3, 130)))
    measured = Magnitudes(("mt", "mono"), ("embeddings", "h.0", "h.1"), values, (4, 4))
    write_magnitudes(measured, folder / "magnitudes.parquet")
    write_overlap(measured, overlap(measured), folder / "overlap.parquet")
    columns = ("layer", "name", "dimension", "rank", "magnitude", "prominence")
    row = dict(zip(columns, (1, "h.0", 7, 3, 1.5, 2.0), strict=True))
    write_rows([row], columns, folder / "particular-mt.parquet")
    zeroed = [("nothing", 0, 3.0), ("particular", 4, 3.5), ("random", 4, 3.1), ("random", 4, 3.3)]
    rows = [
        {"zeroed": z, "seed": 0, "dimensions": n, "condition": "mt", "loss": v, "answer_loss": v} for z, n, v in zeroed
    ]
    write_rows(rows, tuple(rows[0]), folder / "ablation-mt.parquet")
    return folder
