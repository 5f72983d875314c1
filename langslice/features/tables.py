"""What the feature analysis measured, as parquet: one row per number, for whatever tool comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from langslice.features.ablated_translation import AblatedTranslation
from langslice.features.ablation import Ablation
from langslice.features.magnitudes import Magnitudes
from langslice.features.overlaps import Marks, prominence

PARTICULAR_COLUMNS = ("layer", "name", "dimension", "rank", "magnitude", "prominence")


def write_magnitudes(magnitudes: Magnitudes, path: Path) -> None:
    """Columns condition, layer (0 is the embeddings), name, dimension, magnitude."""
    conditions, layers, hidden = magnitudes.values.shape
    names = np.array(magnitudes.layers)
    _write(
        {
            "condition": np.repeat(np.array(magnitudes.conditions), layers * hidden),
            "layer": np.tile(np.repeat(np.arange(layers, dtype=np.int32), hidden), conditions),
            "name": np.tile(np.repeat(names, hidden), conditions),
            "dimension": np.tile(np.arange(hidden, dtype=np.int32), conditions * layers),
            "magnitude": magnitudes.values.reshape(-1),
        },
        path,
    )


def write_overlap(magnitudes: Magnitudes, values: np.ndarray, path: Path) -> None:
    """Columns large_in, small_in, layer, overlap.

    values  (conditions, conditions, layers) float64, shares of the dimensions
    """
    count, _, layers = values.shape
    names = np.array(magnitudes.conditions)
    _write(
        {
            "large_in": np.repeat(names, count * layers),
            "small_in": np.tile(np.repeat(names, layers), count),
            "layer": np.tile(np.arange(layers, dtype=np.int32), count * count),
            "overlap": values.reshape(-1),
        },
        path,
    )


def particular_rows(
    magnitudes: Magnitudes, marks: Marks, wanted: str, others: Sequence[str]
) -> list[dict[str, object]]:
    """One row a marked dimension: layer, dimension, its magnitude and rank in `wanted`, and its prominence.

    marks  (layers, dimensions) bool
    """
    own = magnitudes.of(wanted)
    standing = prominence(magnitudes, wanted, others)
    ranks = np.argsort(np.argsort(-own, axis=1, kind="stable"), axis=1)
    rows: list[dict[str, object]] = []
    for layer, dimension in np.argwhere(marks).tolist():
        rows.append(
            {
                "layer": layer,
                "name": magnitudes.layers[layer],
                "dimension": dimension,
                "rank": int(ranks[layer, dimension]) + 1,
                "magnitude": float(own[layer, dimension]),
                "prominence": float(standing[layer, dimension]),
            }
        )
    return rows


def write_rows(rows: Sequence[dict[str, object]], columns: Sequence[str], path: Path) -> None:
    """Rows of dictionaries with the same keys; no rows make an empty table with these columns."""
    _write({name: [row[name] for row in rows] for name in columns}, path)


def write_ablation(rows: Sequence[Ablation], path: Path, translations: Sequence[AblatedTranslation] = ()) -> None:
    """One row a measurement, with the fields of Ablation; those of AblatedTranslation too, where anything was translated.

    Rows of losses have no `pair`, and rows of translations no `condition`.
    """
    records = [*map(asdict, rows), *map(asdict, translations)]
    names = list(Ablation.__dataclass_fields__)
    if translations:
        names += [name for name in AblatedTranslation.__dataclass_fields__ if name not in names]
    _write({name: [record.get(name) for record in records] for name in names}, path)


def _write(columns: dict[str, object], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
