"""Hidden dimensions as an axis: how many stay at a share, which ones, and the heads that go along where the class ties them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy
from langslice.planning.hidden_choice import check_hidden_choice
from langslice.planning.source import Source
from langslice.progress import Report
from langslice.scoring.hidden_dimensions import hidden_scores, principal_directions
from langslice.structure.hidden_size import hidden_size
from langslice.structure.kept import Kept
from langslice.structure.rotation import packed, refuse_rotation

# Matrices of so many columns, or a multiple, are multiplied fastest.
_COLUMNS = 8
# What the unit may be of the hidden size, at most: 1/16.
_FINEST = 16


@dataclass(frozen=True, eq=False)
class Narrowing:
    """How hidden dimensions go.

    size    of the source's hidden states
    unit    numbers that stay are multiples of it
    tied    whether the class makes heads of hidden size / heads dimensions, so that as many heads go; unit is the size of one
    method  activation, l2 or rotation, as `--hidden-by` takes it
    order   (size,) int64: dimensions, the most important first; after a rotation its own
    basis   (size, size) float64: directions of the rotation, the largest first; None for none
    texts   files of its method, as `--calibration` takes them
    """

    size: int
    unit: int
    tied: bool
    method: str
    order: npt.NDArray[np.int64]
    basis: npt.NDArray[np.float64] | None = None
    texts: tuple[str, ...] = ()

    def number(self, share: float) -> int:
        """Dimensions that stay where a share goes: the nearest multiple of the unit, at least one unit less than all.

        Example  size 384, unit 32, share 1/12: 352
        """
        near = round((1 - share) * self.size / self.unit) * self.unit
        return max(min(near, self.size - self.unit), self.unit)

    def heads(self, share: float) -> float:
        """Share of the heads of every layer that goes along."""
        return (self.size - self.number(share)) / self.size if self.tied and share else 0.0

    def kept(self, share: float) -> Kept:
        """What stays of the hidden states alone; an empty structure for share 0."""
        if not share:
            return Kept()
        number = self.number(share)
        if self.basis is not None:
            return Kept(hidden=tuple(range(number)), rotation=packed(self.basis[:, :number]))
        return Kept(hidden=tuple(sorted(self.order[:number].tolist())))

    def choice(self, share: float) -> dict[str, Any]:
        """The entries of a choice that ask for this, but for the heads."""
        if not share:
            return {}
        texts = {"score_texts": self.texts} if self.texts else {}
        return {"hidden_size": self.number(share), "hidden_by": self.method, **texts}


def find_narrowing(source: Source, *, reads_text: bool, extended: bool) -> Narrowing:
    """How the hidden dimensions of a model can go; which ones is not known yet.

    reads_text  whether there is text to choose by
    extended    whether the vocabulary gets new tokens
    Raises      PlanError where none can
    """
    if extended:
        raise PlanError("the vocabulary gets new tokens, and --hidden-size changes every row as well")
    anatomy = source.anatomy
    size, tied = hidden_size(anatomy), not anatomy.body.head_size
    every = [heads for layers in anatomy.heads.values() for heads in layers.values()]
    if not every:
        raise PlanError("the heads of the model are not known")
    unit = every[0].size if tied else _unit(size, max(heads.query for heads in every))
    narrowing = Narrowing(size, unit, tied, _method(source, reads_text), np.arange(size))
    beside = {"heads_sparsity": 0.5} if tied else {}  # of how many heads is said by what is tried later
    check_hidden_choice(
        source.checkpoint, anatomy, {**narrowing.choice(1 / _FINEST), **beside, "output_style": "stock"}
    )
    return narrowing


def _unit(size: int, heads: int) -> int:
    """Many classes want a multiple of their heads."""
    wide = lcm(_COLUMNS, heads)
    return wide if wide * _FINEST <= size else heads


def _method(source: Source, reads_text: bool) -> str:
    if not reads_text:
        return "l2"
    try:
        refuse_rotation(source.anatomy, source.axes)
    except PlanError:
        return "activation"
    return "rotation"


def measured(narrowing: Narrowing, source: Source, texts: Sequence[str], report: Report) -> npt.NDArray[np.float64]:
    """What the order of dimensions is made from: scores (size,), or the directions of a rotation (size, size).

    texts   files of its method
    Raises  CorpusError, ScoreError
    """
    checkpoint, anatomy = source.checkpoint, source.anatomy
    if narrowing.method == "rotation":
        return principal_directions(checkpoint, anatomy, texts, report)
    return hidden_scores(checkpoint, anatomy, narrowing.method, texts, report)


def ordered(narrowing: Narrowing, found: npt.NDArray[np.float64], texts: Sequence[str]) -> Narrowing:
    """The same with what was measured: scores (size,), or directions (size, size)."""
    if found.ndim == 2:
        return replace(narrowing, basis=found, texts=tuple(texts))
    return replace(narrowing, order=found.argsort(kind="stable")[::-1], texts=tuple(texts))


def widened(items: npt.NDArray[np.float64], dims: npt.NDArray[Any] | None, anatomy: Anatomy) -> npt.NDArray[np.float64]:
    """Embeddings of a narrower slice (n, fewer) as those of its source (n, size), with zeros where a dimension went.

    dims    of the source that the slice has (fewer,), or the matrix of its rotation (size, fewer); None for all
    """
    if dims is None:
        return items
    if dims.ndim == 1:
        full = np.zeros((len(items), hidden_size(anatomy)), items.dtype)
        full[:, dims] = items
        return full
    turned: npt.NDArray[np.float64] = items @ dims.T
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-30)
    return turned
