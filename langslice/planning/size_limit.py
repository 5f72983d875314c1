"""A limit on the size of the result: how many rows of the vocabulary fit when everything else is as the plan has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

from langslice.errors import PlanError
from langslice.files.gather_rows import sliced_shape
from langslice.files.safetensors_header import build_header
from langslice.formatting import bytes_text
from langslice.model.axes import VOCABULARY_AXES
from langslice.model.checkpoint import Checkpoint, Shard
from langslice.planning.plan import TensorPlan
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from langslice.model.anatomy import Anatomy
    from langslice.structure.kept import Kept

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
# What a header may be padded by, so that file systems can share blocks; and names that a layer's new place makes longer.
_PADDING_BYTES: Final = 4096 + 64
_FLOAT32: Final = 4


@dataclass(frozen=True)
class WeightSizes:
    """Bytes of the written weights.

    fixed    of everything but rows of the vocabulary: other tensors as the structure leaves them, headers at most
    per_row  of one row of all tensors along the vocabulary
    """

    fixed: int
    per_row: int


def parse_size(text: str | int, flag: str = "--max-size") -> int:
    """Bytes: "150MB" -> 150,000,000, "1.5GiB" -> 1,610,612,736, "4096" -> 4,096.

    Raises  PlanError for what is no size
    """
    found = _SIZE.fullmatch(str(text).strip())
    size = 0
    if found:
        number, unit, binary = found.groups()
        size = int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
    if size < 1:
        raise PlanError(f"{flag} {text} is no size", hint="write 150MB, 1.5GB or 700MiB")
    return size


def weight_sizes(
    checkpoint: Checkpoint,
    tensors: Mapping[str, TensorPlan],
    anatomy: Anatomy | None,
    structure: Kept | None,
    *,
    float32: bool = False,
) -> WeightSizes:
    """What the weights will take, by what is kept of layers, heads and neurons.

    A table of fewer rows than the vocabulary, such as Gemma 3n's by layer, counts for every row: never too little.
    float32  instead, what they take in memory as float32, without headers
    """
    layers: Mapping[str, TensorEdit] = {}
    if anatomy is not None and structure is not None:
        from langslice.structure.edits import layer_edits

        layers = layer_edits(anatomy, structure, checkpoint.shapes)
    fixed = per_row = 0
    for name, tensor in tensors.items():
        edit = layers.get(name, TensorEdit("keep"))
        if "drop" in (tensor.action, edit.action):
            continue
        hidden = structure.hidden if structure is not None else ()
        shape = narrowed(sliced_shape(tensor.shape, edit.indices), tensor.axes, len(hidden))
        stored = _FLOAT32 * prod(tensor.shape) if float32 else checkpoint.tensors[name].size_bytes
        size = stored * prod(shape) // max(prod(tensor.shape), 1)
        along = [shape[dim] for dim, axis in enumerate(tensor.axes or ()) if axis in VOCABULARY_AXES]
        fixed += 0 if along else size
        per_row += -(-size // along[0]) if along else 0
    headers = 0 if float32 else sum(map(_header_bytes, checkpoint.shards))
    return WeightSizes(fixed + headers, per_row)


def narrowed(shape: tuple[int, ...], axes: Sequence[str] | None, hidden: int) -> tuple[int, ...]:
    """A shape with as many hidden dimensions; 0 for all that it has."""
    if not hidden or axes is None:
        return shape
    return tuple(hidden if axis == "hidden" else size for axis, size in zip(axes, shape, strict=True))


def _header_bytes(shard: Shard) -> int:
    """The most that the header of a shard's result takes: all the source's tensors, at their places in the source."""
    described = ((tensor.name, tensor.dtype, tensor.shape, tensor.size_bytes) for tensor in shard.tensors)
    written = len(build_header(described, {"format": "pt", **shard.metadata}, (8, 0)))
    data = sum(tensor.size_bytes for tensor in shard.tensors)
    found = shard.path.stat().st_size - data if shard.format == "safetensors" else 0
    return max(written, found) + _PADDING_BYTES


def rows_within(limit: str | int, sizes: WeightSizes, *, without_token: int, multiple: int | None) -> int:
    """How many tokens fit, so that the weights stay at or below a size.

    without_token  kept rows that are no token's
    multiple       to which rows are padded
    Raises         PlanError where everything else is too large already
    """
    size = parse_size(limit)
    rows = (size - sizes.fixed) // max(sizes.per_row, 1)
    rows -= rows % (multiple or 1)
    if rows - without_token < 1:
        raise PlanError(
            f"--max-size {limit} leaves no room for a vocabulary: everything else takes {bytes_text(sizes.fixed)}, a row "
            f"{sizes.per_row:,} bytes",
            hint="allow more, or prune layers, heads or neurons as well",
        )
    return int(rows - without_token)
