"""PNG plots of the feature analysis: bars of the largest dimensions, heat maps of overlap.

Needs matplotlib, which `pip install "langslice[pictures]"` brings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import LangsliceError
from langslice.features.ablated_translation import AblatedTranslation
from langslice.features.ablation import Ablation
from langslice.features.magnitudes import Magnitudes
from langslice.features.overlaps import Marks

BAR, MARKED = "#7a8ba0", "#d1495b"


def check_matplotlib() -> None:
    """Fail before any work when pictures cannot be drawn.

    Raises  LangsliceError
    """
    if find_spec("matplotlib") is None:
        raise LangsliceError(
            "pictures need the package `matplotlib`", 'pip install "langslice[pictures]", or pass --no-pictures'
        )


def draw_bars(magnitudes: Magnitudes, condition: str, path: Path, *, top: int = 20, marks: Marks | None = None) -> None:
    """Bars of the largest dimensions of each layer, the marked ones in red.

    top    bars a layer
    marks  bool (layers, hidden): dimensions that are particular to the condition
    """
    values = magnitudes.of(condition)
    figure, axes = _grid(len(magnitudes.layers), width=4.2, height=2.0)
    for layer, axis in enumerate(axes):
        order = np.argsort(-values[layer], kind="stable")[:top]
        red = np.zeros(order.size, dtype=bool) if marks is None else marks[layer, order]
        axis.bar(range(order.size), values[layer, order], color=[MARKED if one else BAR for one in red], width=0.8)
        axis.set_xticks(range(order.size), [str(one) for one in order], rotation=90, fontsize=5)
        axis.tick_params(axis="y", labelsize=6)
        axis.set_title(_layer_title(magnitudes, layer), fontsize=7)
    legend = "" if marks is None else "; red: particular to it"
    _save(figure, path, f"Largest dimensions while reading {condition}{legend}")


def draw_overlap(magnitudes: Magnitudes, values: np.ndarray, path: Path, *, share: float) -> None:
    """One heat map: the mean over layers of what is large in the row's condition and small in the column's.

    values  (conditions, conditions, layers) float64, shares of the dimensions
    """
    names = magnitudes.conditions
    mean = values.mean(axis=2)
    figure, axes = _grid(1, width=2.2 + 0.55 * len(names), height=1.6 + 0.5 * len(names))
    image = axes[0].imshow(mean, cmap="magma", vmin=0.0)
    _label(axes[0], names, size=8)
    for row in range(len(names)):
        for column in range(len(names)):
            light = mean[row, column] < mean.max() * 0.6
            axes[0].text(
                column, row, f"{mean[row, column]:.3f}", ha="center", va="center", fontsize=6,
                color="white" if light else "black",
            )  # fmt: skip
    axes[0].set_xlabel(f"among the smallest {share:.0%} in", fontsize=8)
    axes[0].set_ylabel(f"among the largest {share:.0%} in", fontsize=8)
    figure.colorbar(image, ax=axes[0], fraction=0.05).ax.tick_params(labelsize=7)
    _save(figure, path, "Share of dimensions, mean over layers")


def draw_overlap_by_layer(magnitudes: Magnitudes, values: np.ndarray, path: Path) -> None:
    """The heat map of each layer, on one scale.

    values  (conditions, conditions, layers) float64, shares of the dimensions
    """
    figure, axes = _grid(len(magnitudes.layers), width=2.6, height=2.4)
    image: Any = None
    for layer, axis in enumerate(axes):
        image = axis.imshow(values[:, :, layer], cmap="magma", vmin=0.0, vmax=max(values.max(), 1e-9))
        _label(axis, magnitudes.conditions, size=5)
        axis.set_title(_layer_title(magnitudes, layer), fontsize=7)
    figure.subplots_adjust(hspace=0.5, wspace=0.35)
    figure.colorbar(image, ax=axes, fraction=0.02).ax.tick_params(labelsize=7)
    _save(figure, path, "Share of dimensions: large in the row, small in the column", tight=False)


def draw_ablation(rows: Sequence[Ablation], path: Path, translations: Sequence[AblatedTranslation] = ()) -> None:
    """Loss by condition and by what was zeroed, below it the scores of translations; whiskers are the spread over seeds."""
    losses: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        losses.setdefault((row.condition, row.zeroed), []).append(row.loss)
    panels = [("loss, nats per token", losses)]
    for metric in dict.fromkeys(one.metric for one in translations):
        scores: dict[tuple[str, str], list[float]] = {}
        for one in translations:
            if one.metric == metric:
                scores.setdefault((one.pair, one.zeroed), []).append(one.score)
        panels.append((metric, scores))
    widest = max(len({condition for condition, _ in values}) for _, values in panels)
    figure, axes = _stack(len(panels), width=max(1.5 + 1.3 * widest, 4.0), height=3.0)
    for axis, (label, values) in zip(axes, panels, strict=True):
        _draw_groups(axis, values)
        axis.set_ylabel(label, fontsize=8)
    axes[0].legend(fontsize=7, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    what = "Loss and translation" if translations else "Loss"
    _save(figure, path, f"{what} with dimensions zeroed after every layer")


def _draw_groups(axis: Any, values: Mapping[tuple[str, str], Sequence[float]]) -> None:
    """Bars of (group, kind) side by side in each group: the mean, with lowest and highest."""
    groups = list(dict.fromkeys(group for group, _ in values))
    kinds = list(dict.fromkeys(kind for _, kind in values))
    for place, (kind, colour) in enumerate(zip(kinds, ("#444444", MARKED, BAR, "#c9d1da"), strict=False)):
        found = [values[group, kind] for group in groups]
        means = [float(np.mean(one)) for one in found]
        # Lists: matplotlib before 3.11 takes the scalar of an array of one group, which numpy deprecates.
        spread = [
            [max(mean - min(one), 0.0) for mean, one in zip(means, found, strict=True)],
            [max(max(one) - mean, 0.0) for mean, one in zip(means, found, strict=True)],
        ]
        positions = np.arange(len(groups)) + (place - (len(kinds) - 1) / 2) * 0.2
        axis.bar(positions, means, width=0.2, yerr=spread, color=colour, label=kind, error_kw={"lw": 0.8})
    axis.set_xticks(range(len(groups)), groups, fontsize=8)


def file_name(condition: str) -> str:
    """A condition as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", condition)


def _grid(count: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(math.ceil(math.sqrt(count)), 6)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1).tolist()
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def _stack(count: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    """Panels one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * count + 0.4))
    axes = figure.subplots(count, 1, squeeze=False).reshape(-1).tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _label(axis: Any, names: Sequence[str], *, size: int) -> None:
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)


def _layer_title(magnitudes: Magnitudes, layer: int) -> str:
    return f"{layer}: {magnitudes.layers[layer]}"


def _save(figure: Any, path: Path, title: str, *, tight: bool = True) -> None:
    figure.suptitle(title, fontsize=9, y=0.99 if tight else 0.96)
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")
