"""Scores as a plot: layers x heads or experts as a heat map, layers and neurons as bars, languages side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import OutputError
from langslice.scoring.table import OVERALL, Scores

_MAP = "viridis"
_MAPPED = ("heads", "experts")
_DPI = 120
_QUANTILES = (0.05, 0.5, 0.95)


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_scores(scores: Scores, path: Path) -> None:
    """Draw scores as PNG.

    Heads and experts: a heat map for each attention or stack, and where there are languages one for each of them and bars of
    their mean by layer.
    Layers: bars with their spread. Neurons: from the 5th to the 95th percentile of each layer, the median as a point.
    Raises   OutputError without matplotlib
    """
    if not can_draw():
        raise OutputError("pictures need matplotlib", hint='pip install "langslice[pictures]"')
    from matplotlib.figure import Figure

    panels = _panels(scores)
    columns = max(len({place for place, _ in panels}), 1)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(4.6 * columns, 6), 3.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for at, axis in enumerate(axes.T.flatten()):
        if at < len(panels):
            _draw(scores, *panels[at], axis, figure)
        else:
            axis.set_axis_off()
    figure.suptitle(f"{scores.kind} of {Path(scores.model).name or scores.model}: {scores.method}", fontsize=11)
    figure.savefig(path, dpi=_DPI, format="png")


def _panels(scores: Scores) -> list[tuple[str, str]]:
    """(place, language) of each panel, place by place."""
    places = sorted(set(scores.place.tolist()))
    own = [OVERALL] if (scores.language == OVERALL).any() else []
    if scores.kind not in _MAPPED:
        return [(place, "*") for place in places]
    bars = ["*"] if scores.languages else []
    return [(place, language) for place in places for language in [*own, *scores.languages, *bars]]


def _draw(scores: Scores, place: str, language: str, axis: Any, figure: Any) -> None:
    axis.set_title(place if language in (OVERALL, "*") else f"{place}, {language}", fontsize=9)
    axis.tick_params(labelsize=7)
    if language == "*":
        _draw_bars(scores, place, axis)
        return
    layers = scores.values(language)[place]
    table = np.full((len(layers), max(map(len, layers.values()))), np.nan)
    for at, row in enumerate(layers.values()):
        table[at, : len(row)] = row
    image = axis.imshow(table, cmap=_MAP, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    axis.set_ylabel("layer", fontsize=8)
    axis.set_xlabel(scores.kind.removesuffix("s"), fontsize=8)
    figure.colorbar(image, ax=axis).ax.tick_params(labelsize=7)


def _draw_bars(scores: Scores, place: str, axis: Any) -> None:
    """One bar for each layer and language: a layer's score, the mean of its heads or experts, or the range of its neurons."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layer", fontsize=8)
    axis.set_ylabel(f"mean of {scores.kind}" if scores.kind in _MAPPED else "score", fontsize=8)
    languages = list(scores.languages) or [OVERALL]
    width = 0.8 / len(languages)
    for at, language in enumerate(languages):
        values, spreads = scores.values(language)[place], scores.spreads(language)[place]
        x = np.array(list(values), dtype=float) + (at - (len(languages) - 1) / 2) * width
        if scores.kind == "neurons":
            low, middle, high = np.array([np.quantile(row, _QUANTILES) for row in values.values()]).T
            axis.bar(x, high - low, width, bottom=low, label=language, alpha=0.6)
            axis.plot(x, middle, ".", color="black", markersize=3)
            continue
        heights = np.array([row.mean() for row in values.values()])
        shown = np.isfinite(heights)  # layers that a greedy removal did not reach are infinitely dear
        errors = None
        if scores.kind == "layers":
            errors = np.nan_to_num(np.array([row[0] for row in spreads.values()]))[shown]
        axis.bar(x[shown], heights[shown], width, yerr=errors, label=language, error_kw={"lw": 0.8})
    if languages != [OVERALL]:
        axis.legend(fontsize=7)
