"""A rotation of the residual stream before it is cut: what it makes of every tensor (SliceGPT, arXiv 2401.15024).

With B (hidden, N), orthonormal columns, the stream of the slice is that of the source times B. What writes is multiplied by B; what
reads it takes the weights of the norm before it along, and B. These norms then have no weights left but ones. One rotation serves
the whole model, so that what layers add needs no matrix of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.model.anatomy import Anatomy, find_place
from langslice.model.axes import TensorAxes
from langslice.model.checkpoint import Checkpoint, TensorEntry
from langslice.structure.hidden_size import hidden_size, residual_of
from langslice.structure.kept import Kept
from langslice.structure.scaled_values import as_float64, rounded
from langslice.structure.written_zeros import opened
from langslice.writing.shards import TensorEdit

Indices = Mapping[int, npt.NDArray[np.int64]]
_WINDOW_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Turn:
    """What a rotation does to one tensor.

    dim    dimension of the stream
    norm   name of the norm whose weights it takes along, where it reads; "" where it writes
    ones   whether it is the weight of such a norm itself
    """

    dim: int
    norm: str = ""
    ones: bool = False


def packed(basis: npt.NDArray[np.float64]) -> str:
    """A basis (hidden, n) as text: float32, little-endian, by rows, in base 64."""
    return base64.b64encode(np.ascontiguousarray(basis, dtype="<f4").tobytes()).decode("ascii")


def basis_of(anatomy: Anatomy, kept: Kept) -> npt.NDArray[np.float64]:
    """The basis (hidden, n) of a rotated slice.

    Raises   PlanError where the text is none
    """
    size = hidden_size(anatomy)
    try:
        found = np.frombuffer(base64.b64decode(kept.rotation, validate=True), dtype="<f4").astype(np.float64)
        basis = found.reshape(size, len(kept.hidden))
    except ValueError as error:
        raise PlanError(
            f"the plan's rotation is no matrix of {size} rows, {len(kept.hidden)} columns: {error}"
        ) from error
    if not np.allclose(basis.T @ basis, np.eye(len(kept.hidden)), atol=1e-5):
        raise PlanError("the columns of the plan's rotation are not orthonormal", hint="make a new plan")
    return basis


def refuse_rotation(anatomy: Anatomy, tensors: Mapping[str, TensorAxes]) -> dict[str, Turn]:
    """What a rotation makes of every tensor of the stream; refused where it does not go through the model.

    tensors  of the source: name -> part and axes
    Raises   PlanError with the reason
    """
    residual, kind = residual_of(anatomy), anatomy.body.model_types[0]
    why = ""
    if residual.norm == "layer":
        why = "layer norms after the sum take a mean away and weigh each dimension"
    elif residual.after:
        why = "norms with a weight for each dimension stand behind the parts of its layers, and do not commute with a rotation"
    elif not residual.rotates:
        why = "what reads which norm is not in the table"
    elif not any(_is_head(name) for name in tensors):
        why = "its head is tied to the embedding, or there is none, so that the weights of the last norm can be folded into neither"
    if why:
        raise PlanError(
            f"the hidden states of this `{kind}` model cannot be rotated: {why}",
            hint="--hidden-by activation keeps dimensions as they are"
            + ("; or give the head a table of its own (tie_word_embeddings: false)" if "tied" in why else ""),
        )
    last = [name for name, one in tensors.items() if _is_norm(one) and name not in anatomy.places]
    return {name: _turn(anatomy, name, one, last) for name, one in tensors.items() if one.axes and "hidden" in one.axes}


def _is_head(name: str) -> bool:
    return "lm_head" in name


def _is_norm(tensor: TensorAxes) -> bool:
    return tensor.part == "norm" and tensor.axes == ("hidden",)


def _turn(anatomy: Anatomy, name: str, tensor: TensorAxes, last: list[str]) -> Turn:
    axes, place = tensor.axes or (), find_place(name, anatomy.body)
    dim = axes.index("hidden")
    if axes.count("hidden") > 1 or len(last) != 1:
        raise PlanError(
            f"the hidden states cannot be rotated: {name} both reads and writes them, or no norm is the last"
        )
    if _is_norm(tensor):
        return Turn(dim, ones=True)
    if place is None:
        return Turn(dim, "" if tensor.part == "vocabulary" and not _is_head(name) else last[0])
    if len(axes) == 1 or dim != len(axes) - 1:
        return Turn(dim)
    norm = "input_layernorm" if tensor.part == "attention" else "post_attention_layernorm"
    return Turn(dim, f"{place.before}{place.layer}.{norm}.weight")


def turned(
    checkpoint: Checkpoint, name: str, turn: Turn, indices: Indices, basis: npt.NDArray[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """The values of a tensor after the rotation, cut as a plan says, window by window.

    indices  dimension -> old indices that stay, of all dimensions but that of the stream
             each (n,)
    basis    (hidden, n)
    Returns  first row of a window, and its rows (rows, ...) float64
    """
    entry = checkpoint.tensors[name]
    if turn.ones:
        yield 0, np.ones(basis.shape[1])
        return
    matrix = basis
    if turn.norm:
        norm = checkpoint.tensors[turn.norm]
        matrix = as_float64(opened(norm, "r"), norm.dtype)[:, None] * basis * (basis.shape[0] / basis.shape[1]) ** 0.5
    rows = np.arange(entry.shape[0]) if turn.dim == 0 else indices.get(0, np.arange(entry.shape[0]))
    width = max(int(np.prod(entry.shape[1:])), 1)
    step = len(rows) if turn.dim == 0 else max(_WINDOW_ELEMENTS // width, 1)
    for start in range(0, len(rows), step):
        values = as_float64(opened(entry, "r")[rows[start : start + step]], entry.dtype)
        for dim, stay in indices.items():
            if dim not in (0, turn.dim):
                values = np.take(values, stay, axis=dim)
        yield start, np.moveaxis(np.tensordot(values, matrix, axes=([turn.dim], [0])), -1, turn.dim)


def cut_beside(turn: Turn, indices: Indices) -> Indices:
    """The indices (n,) of an edit by dimension, without those of the stream."""
    return {dim: stay for dim, stay in indices.items() if dim != turn.dim}


def write_turned(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    kept: Kept,
    tensors: Mapping[str, TensorAxes],
    edits: Mapping[str, TensorEdit],
    written: Mapping[str, TensorEntry],
) -> None:
    """Put the values after a rotation into tensors that were written with the right shapes.

    tensors  of the source: name -> part and axes
    edits    of a slice: name -> indices that stay
    written  of the slice, whose files are its own
    """
    basis = basis_of(anatomy, kept)
    for name, turn in refuse_rotation(anatomy, tensors).items():
        edit = edits[name]
        if edit.action == "drop":
            continue
        entry = written[edit.name or name]
        table = opened(entry, "r+")
        for start, values in turned(checkpoint, name, turn, cut_beside(turn, edit.indices), basis):
            table[start : start + len(values)] = rounded(values, entry.dtype)
        table.flush()
