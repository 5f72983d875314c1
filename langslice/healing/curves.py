"""The course of a healing run as a table (healing.parquet) and a plot (healing.png, with matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

TABLE: Final = "healing.parquet"
PICTURE: Final = "healing.png"
_LINE, _HELD_OUT = "#7a8ba0", "#d1495b"
_SMOOTHED = 50  # windows of the line over the points


def write_curves(
    folder: Path, history: Sequence[Mapping[str, float]], heldout: tuple[float, float] | None, steps: int
) -> list[str]:
    """Write table and plot; gives the names of the files that were written.

    history  Trainer's log
    heldout  loss before and after
    """
    rows = curve_rows(history, heldout, steps)
    _write_table(folder / TABLE, rows)
    if find_spec("matplotlib") is None:
        return [TABLE]
    _draw(folder / PICTURE, rows)
    return [TABLE, PICTURE]


def curve_rows(
    history: Sequence[Mapping[str, float]], heldout: tuple[float, float] | None, steps: int
) -> list[dict[str, float | None]]:
    """One row a step that was logged: step, loss, heldout_loss, learning_rate, gradient_norm."""
    rows: dict[int, dict[str, float | None]] = {}

    def at(step: int) -> dict[str, float | None]:
        empty = dict.fromkeys(("loss", "heldout_loss", "learning_rate", "gradient_norm"))
        return rows.setdefault(step, {"step": step, **empty})

    for entry in history:
        step = int(entry["step"])
        if "loss" in entry:
            at(step).update(loss=entry["loss"], learning_rate=entry.get("learning_rate"))
            at(step)["gradient_norm"] = None if entry.get("grad_norm") is None else float(entry["grad_norm"])
        if "eval_loss" in entry:
            at(step)["heldout_loss"] = entry["eval_loss"]
    if heldout is not None:
        at(0)["heldout_loss"], at(steps)["heldout_loss"] = heldout
    return [rows[step] for step in sorted(rows)]


def _write_table(path: Path, rows: Sequence[Mapping[str, float | None]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = pa.float64()
    schema = pa.schema(
        [
            ("step", pa.int64()),
            ("loss", number),
            ("heldout_loss", number),
            ("learning_rate", number),
            ("gradient_norm", number),
        ]
    )
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def _draw(path: Path, rows: Sequence[Mapping[str, float | None]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = [row["step"] or 0.0 for row in rows if row["loss"] is not None]
    losses = [row["loss"] or 0.0 for row in rows if row["loss"] is not None]
    window = max(len(losses) // _SMOOTHED, 1)
    smooth = [sum(losses[max(at - window + 1, 0) : at + 1]) / min(window, at + 1) for at in range(len(losses))]
    apart = [(row["step"] or 0.0, row["heldout_loss"]) for row in rows if row["heldout_loss"] is not None]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    axis.plot(steps, losses, ".", color=_LINE, alpha=0.35, markersize=3)
    axis.plot(steps, smooth, color=_LINE, label="training")
    if apart:
        axis.plot(
            [step for step, _ in apart], [loss for _, loss in apart], "o-", color=_HELD_OUT, label="held-out text"
        )
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("loss")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
