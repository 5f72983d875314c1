"""What other commands measured, as data for a report: results, scores, features and the curve of healing.

Everything is checked to be of the slice that the report is about, as far as the files say what they were measured on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import ReportError
from langslice.evaluation.results import FORMAT as RESULTS_FORMAT
from langslice.evaluation.results import Score, Value
from langslice.evaluation.statistics import Difference
from langslice.reporting.data import FeatureMaps, Healing, Report, Results, ScoreMap

_SCORES_FORMAT = "langslice-scores-1"
# Tasks of `evaluate` that say what a model needs, not what it can do.
_COSTS = ("speed", "size")
# Bins of hidden dimensions in a plot.
_BINS = 96
HEALING_FILE = "healing.parquet"
# Columns of healing.parquet that are losses, and what their curves are called.
_LOSSES = {"loss": "training text", "heldout_loss": "held-out text"}


def read_results(path: Path, report: Report) -> Results:
    """Read a file of `langslice evaluate` and check that its slice is this one.

    Raises  ReportError
    """
    document = _read_json(path, "results of `langslice evaluate -o`")
    if not isinstance(document, dict) or document.get("format") != RESULTS_FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ReportError(
            f"{path}: expected format {RESULTS_FORMAT}, found {found}",
            hint="write it with `langslice evaluate MODEL OUT -o`",
        )
    try:
        models = {str(role): dict(model) for role, model in document["models"].items()}
        scores = tuple(_score(entry) for entry in document["scores"])
        notes = {str(role): tuple(map(str, lines)) for role, lines in document.get("notes", {}).items()}
        settings = dict(document["settings"])
        _check_models(path, models, report)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(
            f"{path}: the results are damaged: {type(error).__name__}: {error}", hint="evaluate again"
        ) from error
    return Results(
        file=path.name,
        models=models,
        settings=settings,
        scores=tuple(score for score in scores if score.task not in _COSTS),
        speed=tuple(score for score in scores if score.task in _COSTS),
        notes=notes,
    )


def _read_json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReportError(f"{path}: no such file", hint=f"it should hold {what}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path} is not readable: {error}", hint=f"it should hold {what}") from error


def _score(entry: Mapping[str, Any]) -> Score:
    def value(given: Mapping[str, Any] | None) -> Value | None:
        if given is None:
            return None
        return Value(_number(given["value"]), int(given["n"]), _optional(given["low"]), _optional(given["high"]))

    original = value(entry["original"])
    if original is None:
        raise ValueError("a score without a value")
    found = entry.get("difference")
    change = None if found is None else Difference(*(_number(found[name]) for name in ("value", "low", "high", "p")))
    return Score(
        str(entry["task"]), str(entry["language"]), str(entry["metric"]), str(entry["better"]), original,
        value(entry.get("slice")), change, entry.get("details", {}),
    )  # fmt: skip


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _check_models(path: Path, models: Mapping[str, Mapping[str, Any]], report: Report) -> None:
    """The slice that was measured has this slice's parameters and rows; alone, a model may also be the original."""
    rows = report.vocabulary.rows if report.vocabulary is not None else None
    for role, model in models.items():
        fits = {"original": [report.parameters.before], "slice": [report.parameters.after]}.get(role, [])
        if len(models) == 1:
            fits = [report.parameters.before, report.parameters.after]
        expected_rows = None if rows is None else {rows.before, rows.after}
        wrong_rows = expected_rows is not None and int(model["vocabulary"]) not in expected_rows
        if int(model["parameters"]) not in fits or wrong_rows:
            raise ReportError(
                f"{path}: results of another model\n"
                f"  {role} `{model['name']}` has {int(model['parameters']):,} parameters and {int(model['vocabulary']):,} rows\n"
                f"  expected {' or '.join(f'{fit:,}' for fit in fits)} parameters",
                hint="evaluate this slice with `langslice evaluate MODEL OUT -o`",
            )


def read_scores(path: Path, report: Report) -> list[ScoreMap]:
    """Read a file of `langslice score`: one map for each place, of all text together or of each language.

    Raises  ReportError when the file is damaged, or its layers are not those of the slice's source
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[b"langslice"])
        if facts["format"] != _SCORES_FORMAT:
            raise ReportError(f"{path}: format {facts['format']!r}, expected {_SCORES_FORMAT!r}", hint="score again")
        columns = {name: table[name].to_pylist() for name in ("place", "layer", "index", "language", "score")}
    except FileNotFoundError as error:
        raise ReportError(f"{path}: no such file", hint="write scores with `langslice score`") from error
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise ReportError(f"{path}: not a file of scores ({error})", hint="write it with `langslice score`") from error
    found: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for place, layer, index, language, score in zip(*columns.values(), strict=True):
        found.setdefault((str(place), str(language)), {}).setdefault(int(layer), {})[int(index)] = float(score)
    overall = any(language == "" for _, language in found)
    maps = [
        ScoreMap(
            path.name, str(facts["kind"]), str(facts["method"]), place, language,
            {layer: tuple(value for _, value in sorted(row.items())) for layer, row in sorted(rows.items())},
            tuple(map(str, facts["texts"])), len(facts["seeds"]),
        )
        for (place, language), rows in found.items()
        if language == "" or not overall
    ]  # fmt: skip
    for one in maps:
        _check_sizes(path, one, report)
    return maps


def _check_sizes(path: Path, scores: ScoreMap, report: Report) -> None:
    """Refuse scores of a model with other layers, where the record says what the source's layers are."""
    stack = next((stack for stack in report.stacks if stack.name == scores.place.partition(".")[0]), None)
    if stack is None or not stack.sizes_known:
        return
    for layer, row in scores.rows.items():
        expected: int | None = None
        if layer < len(stack.layers):
            here = stack.layers[layer]
            heads = here.heads.get(scores.place.rpartition(".")[2])
            units = {"heads": heads, "experts": here.experts}.get(scores.kind, here.neurons)
            expected = 1 if scores.kind == "layers" else units.total if units else None
        if expected != len(row):
            raise ReportError(
                f"{path}: scores of another model than the slice's source\n"
                f"  layer {layer} of {scores.place} has {len(row)} {scores.kind} there, {expected or 'none'} here",
                hint="score the model that was sliced, with `langslice score`",
            )


def read_features(folder: Path) -> FeatureMaps:
    """Read the tables of a folder that `langslice features` wrote.

    Raises  ReportError
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows(path: Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found

    try:
        table = pq.read_table(folder / "magnitudes.parquet")
        layers, values = _magnitudes({name: table[name].to_pylist() for name in table.column_names})
        overlap: dict[tuple[str, str], dict[int, float]] = {}
        if (folder / "overlap.parquet").is_file():
            for row in rows(folder / "overlap.parquet"):
                pair = (str(row["large_in"]), str(row["small_in"]))
                overlap.setdefault(pair, {})[int(row["layer"])] = float(row["overlap"])
        hidden = next(iter(values.values())).shape[1]
        particular = {
            path.stem.partition("-")[2]: tuple(rows(path)) for path in sorted(folder.glob("particular-*.parquet"))
        }
        ablation = {
            path.stem.partition("-")[2]: tuple(rows(path)) for path in sorted(folder.glob("ablation-*.parquet"))
        }
    except FileNotFoundError as error:
        raise ReportError(
            f"{folder}: no magnitudes.parquet", hint="name a folder that `langslice features -o` wrote"
        ) from error
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, StopIteration) as error:
        raise ReportError(
            f"{folder}: not the tables of `langslice features` ({error})", hint="measure again"
        ) from error
    size = -(-hidden // _BINS)
    return FeatureMaps(
        folder=folder.name,
        layers=layers,
        magnitudes={name: _binned(table, size) for name, table in values.items()},
        hidden=hidden,
        bin_size=size,
        overlap={pair: tuple(by_layer[layer] for layer in sorted(by_layer)) for pair, by_layer in overlap.items()},
        particular=particular,
        ablation=ablation,
    )


def _magnitudes(columns: Mapping[str, Sequence[Any]]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the layers, and condition -> (layers, hidden)."""
    layer = np.asarray(columns["layer"], dtype=np.int64)
    dimension = np.asarray(columns["dimension"], dtype=np.int64)
    shape = (int(layer.max()) + 1, int(dimension.max()) + 1)
    names = dict(zip(columns["layer"], columns["name"], strict=True))
    conditions = np.asarray(columns["condition"], dtype=object)
    values: dict[str, np.ndarray] = {}
    for condition in dict.fromkeys(columns["condition"]):
        rows = np.flatnonzero(conditions == condition)
        table = np.full(shape, np.nan)
        table[layer[rows], dimension[rows]] = np.asarray(columns["magnitude"], dtype=np.float64)[rows]
        values[str(condition)] = table
    return tuple(str(names[number]) for number in range(shape[0])), values


def _binned(table: np.ndarray, size: int) -> tuple[tuple[float, ...], ...]:
    """(layers, hidden) -> the largest of each `size` dimensions."""
    starts = np.arange(0, table.shape[1], size)
    return tuple(tuple(map(float, row)) for row in np.maximum.reduceat(table, starts, axis=1))


def read_healing(folder: Path, facts: Mapping[str, Any] | None) -> Healing | None:
    """What the record says of training after the slice, and the curves of losses next to it.

    facts   the record's entry `healed`; None where there was no training
    Raises  ReportError when healing.parquet is there and is no table of steps and losses
    """
    if facts is None:
        return None
    path = folder / HEALING_FILE
    curves: dict[str, list[tuple[float, float]]] = {}
    if path.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for row in pq.read_table(path).to_pylist():
                for column, name in _LOSSES.items():
                    if row.get(column) is not None:
                        part = next((str(row[key]) for key in ("split", "kind") if row.get(key)), name)
                        curves.setdefault(part, []).append((float(row["step"]), float(row[column])))
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise ReportError(f"{path}: not a table of steps and losses ({error})", hint="heal again") from error
    return Healing(dict(facts), {name: tuple(sorted(points)) for name, points in curves.items()})
