"""Where each tensor of a restored model comes from, and the writing of it.

A tensor that the trained slice holds whole is streamed from there, one that it does not hold from the base. Of a tensor
that it holds in part, the base's is written first, and the trained rows and columns are laid over it, window by window.
No weight is loaded whole, and nothing is computed but the widening of floats, which is exact.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CheckpointError, PlanError
from langslice.files.copy_ranges import read_into, write_all
from langslice.files.float_types import FLOATS, WIDER, wide
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry, tensor_size_bytes
from langslice.model.axes import VOCABULARY_AXES
from langslice.model.checkpoint import Checkpoint, Shard
from langslice.model.transformers_classes import ties_embeddings
from langslice.planning.plan import SlicePlan
from langslice.verification.tensors import as_rows
from langslice.writing.shards import TensorEdit

Indices = npt.NDArray[np.int64]

WINDOW_BYTES = 16 << 20


@dataclass(frozen=True)
class Placement:
    """Which indices of a trained tensor go where along one dimension.

    taken    (n,) indices in the trained tensor
    target   (n,) ascending indices in the restored one
    """

    taken: Indices
    target: Indices


@dataclass(frozen=True)
class TensorOrigin:
    """How one tensor of the restored model comes about.

    edit      what of the first bytes is written, and under which name
    trained   the slice's tensor; None where the base's stays as it is
    places    dimension -> where the trained indices go; {} when the trained tensor is the whole
    fill      whether zeros of the trained tensor are holes of a mask, which the base's values fill again
    """

    edit: TensorEdit
    trained: TensorEntry | None = None
    places: Mapping[int, Placement] = field(default_factory=dict)
    fill: bool = False

    @property
    def laid_over(self) -> bool:
        """Whether the base's bytes are needed next to the trained ones."""
        return self.trained is not None and (bool(self.places) or self.fill)


def find_origins(
    base: Checkpoint,
    trained: Checkpoint,
    plan: SlicePlan,
    edits: Mapping[str, TensorEdit],
    *,
    everything: bool,
    copies: Collection[str] = (),
) -> tuple[dict[str, TensorOrigin], tuple[str, ...]]:
    """Say for every tensor of the base where the restored one comes from.

    edits       what `slice` did to each tensor of the base
    everything  whether layers, heads, neurons and pruned weights come back too
    copies      tensors of the base that are second names of another, which safetensors cannot hold
    Returns     base's tensor -> its origin, and sentences that a user should see
    Raises      PlanError when the trained folder does not hold exactly what the slice held
    """
    entries, notes = _trained_tensors(base, trained, plan, edits)
    masked = _masked(plan) if everything else frozenset()
    origins: dict[str, TensorOrigin] = {}
    for name, edit in edits.items():
        axes = plan.tensors[name].axes or ()
        if edit.action == "drop":
            back = everything and name not in copies
            origins[name] = TensorOrigin(TensorEdit("keep") if back else TensorEdit("drop", reason=edit.reason))
            continue
        entry = entries[edit.name or name]
        places = {
            dim: _place(axes[dim], values, plan, entry, dim)
            for dim, values in edit.indices.items()
            if everything or axes[dim] in VOCABULARY_AXES
        }
        # Where nothing comes back, the trained tensor has the restored shape already.
        stays = {dim: values for dim, values in edit.indices.items() if dim not in places} if places else {}
        kept = TensorEdit("slice" if stays else "keep", stays, name="" if everything else edit.name)
        origins[name] = TensorOrigin(kept, entry, places, fill=(edit.name or name) in masked or name in masked)
    return origins, notes


def _trained_tensors(
    base: Checkpoint, trained: Checkpoint, plan: SlicePlan, edits: Mapping[str, TensorEdit]
) -> tuple[dict[str, TensorEntry], tuple[str, ...]]:
    """The slice's tensors by the names that `slice` gave them, shapes checked."""
    from langslice.files.gather_rows import sliced_shape

    found = dict(trained.tensors)
    notes: list[str] = []
    expected = {
        edit.name or name: sliced_shape(plan.tensors[name].shape, edit.indices)
        for name, edit in edits.items()
        if edit.action != "drop"
    }
    tables = [
        edit.name or name
        for name, edit in edits.items()
        if edit.action != "drop"
        and len(expected[edit.name or name]) == 2
        and "vocab" in (plan.tensors[name].axes or ())
    ]
    for name in [name for name in tables if name not in found and ties_embeddings(base.config)]:
        # Trainers write a tied table once, under whichever of its names they like.
        twin = next((other for other in tables if other in found and expected[other] == expected[name]), None)
        if twin is not None:
            found[name] = replace(found[twin], name=name)
            notes.append(f"{name} is not in the trained slice, whose configuration ties it to {twin}: taken from there")
    for names, what in (
        (expected.keys() - found.keys(), "that the slice had and the trained folder lacks"),
        (found.keys() - expected.keys(), "in the trained folder that the slice did not have"),
    ):
        if names:
            shown = "\n  ".join(sorted(names)[:10])
            raise PlanError(
                f"{len(names)} tensors {what}\n  {shown}",
                "restore takes the slice's own weights: merge adapters first, and leave out heads of another task",
            )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise PlanError(
                f"tensor {name} of the trained folder has shape {found[name].shape}\n  expected {shape}, as in the slice",
                "is this folder trained from the slice that the plan made?",
            )
    return found, tuple(notes)


def _masked(plan: SlicePlan) -> frozenset[str]:
    """Tensors in which zeros are holes: new names of pruned ones, old names of those with zeroed heads or rows."""
    zeroed = plan.structure.zeroed if plan.structure is not None else {}
    pruned = plan.pruned.get("tensors", {})
    if plan.structure is not None and plan.structure.style == "masked":
        return frozenset(plan.tensors)
    return frozenset(pruned) | frozenset(zeroed)


def _place(axis: str, values: Indices, plan: SlicePlan, entry: TensorEntry, dim: int) -> Placement:
    """Where the indices of one dimension go; of an old index that is in the slice more than once, the first counts.

    Example   values (0, 4, 4): taken (0, 1), target (0, 4)
    Raises    PlanError when copies of a head were trained apart, because both would belong into one place
    """
    if axis in VOCABULARY_AXES:  # what follows the kept rows is padding, which no text reaches
        count = min(len(values), len(plan.kept))
        return Placement(np.arange(count, dtype=np.int64), values[:count])
    target, taken = np.unique(values, return_index=True)
    if len(target) != len(values):
        again = np.flatnonzero(~np.isin(np.arange(len(values)), taken))
        first = taken[np.searchsorted(target, values[again])]
        rows = as_rows(entry, dim)
        if not np.array_equal(rows[again], rows[first]):
            raise PlanError(
                f"{entry.name}: the slice holds copies of a key-value head, and training made them differ",
                "restore without --everything, which keeps the slice's heads as they are",
            )
    return Placement(taken.astype(np.int64), target)


def merged_checkpoint(base: Checkpoint, origins: Mapping[str, TensorOrigin], scratch: Path) -> Checkpoint:
    """The base with every tensor's bytes taken from where they are to be written from first, in the trained float type.

    scratch   an empty folder for tables that must be widened
    Raises    CheckpointError when the trained weights have a narrower float type than the base's rows next to them
    """
    wanted = _float_types(base, origins)
    shards = []
    for shard in base.shards:
        entries = []
        for entry in shard.tensors:
            origin = origins[entry.name]
            if origin.trained is not None and not origin.laid_over:
                entry = replace(origin.trained, name=entry.name)
            elif origin.edit.action != "drop" and wanted.get(entry.name, entry.dtype) != entry.dtype:
                entry = widened(entry, wanted[entry.name], scratch / f"{len(list(scratch.iterdir()))}.bin")
            entries.append(entry)
        shards.append(Shard(shard.name, shard.path, shard.format, tuple(entries), shard.metadata))
    return replace(base, shards=tuple(shards))


def _float_types(base: Checkpoint, origins: Mapping[str, TensorOrigin]) -> dict[str, str]:
    """The type of every restored tensor: the trained one's, and of what the slice has not, the type its like got."""
    became: dict[str, set[str]] = {}
    for name, origin in origins.items():
        if origin.trained is not None:
            became.setdefault(base.tensors[name].dtype, set()).add(origin.trained.dtype)
    types: dict[str, str] = {}
    for name, origin in origins.items():
        own = base.tensors[name].dtype
        types[name] = own
        if origin.trained is not None:
            types[name] = origin.trained.dtype
            if origin.laid_over and types[name] != own and types[name] not in WIDER.get(own, ()):
                raise CheckpointError(
                    f"{name} is {own} in the base and {types[name]} in the trained slice\n"
                    f"  untouched rows of the base would be rounded",
                    f"convert the trained slice to {own} first, which its values survive",
                )
        elif len(became.get(own, ())) == 1:
            (types[name],) = became[own]
            if types[name] not in (own, *WIDER.get(own, ())):
                types[name] = own
    return types


def widened(entry: TensorEntry, dtype: str, path: Path) -> TensorEntry:
    """Write a tensor in a wider float type, exactly, into a file of its own.

    Returns  the entry of that file
    """
    itemsize = DTYPE_BITS[entry.dtype] // 8
    wide_bytes = tensor_size_bytes(dtype, entry.shape)
    source = os.open(entry.path, os.O_RDONLY)
    try:
        with path.open("xb") as file:
            for start in range(0, entry.size_bytes, WINDOW_BYTES):
                raw = np.empty(min(WINDOW_BYTES, entry.size_bytes - start), np.uint8)
                read_into(source, raw.data, entry.start + start)
                file.write(wide(raw.view(f"u{itemsize}"), entry.dtype, dtype).tobytes())
    finally:
        os.close(source)
    return TensorEntry(entry.name, dtype, entry.shape, path, 0, wide_bytes)


def without_padding(trained: Checkpoint, plan: SlicePlan) -> Checkpoint:
    """The trained slice as if its vocabulary ended with the last kept token.

    Example   an embedding of 128 rows of which 100 are kept: the entry of its first 100 rows
    """
    cut = {}
    for name, tensor in plan.tensors.items():
        entry = trained.tensors.get(tensor.name or name)
        axes = tensor.axes or ()
        if entry is None or "vocab" not in axes:
            continue
        dim = axes.index("vocab")
        if all(size == 1 for size in entry.shape[:dim]):  # the kept entries are the first bytes
            shape = (*entry.shape[:dim], len(plan.kept), *entry.shape[dim + 1 :])
            cut[entry.name] = replace(entry, shape=shape, size_bytes=tensor_size_bytes(entry.dtype, shape))
    shards = [
        replace(shard, tensors=tuple(cut.get(entry.name, entry) for entry in shard.tensors)) for shard in trained.shards
    ]
    return replace(trained, shards=tuple(shards))


def float_rows(entry: TensorEntry, rows: Indices) -> npt.NDArray[Any]:
    """Some rows of a tensor as float64, which holds every narrower float; of other types the raw bytes.

    rows     (n,) int64, along dimension 0
    Returns  (n, ...) float64, or (n, ..., bytes) uint8
    """
    raw = as_rows(entry, 0)
    taken = np.ascontiguousarray(raw[rows] if entry.shape else raw[None])
    if entry.dtype not in FLOATS:
        return taken
    bits = taken.view(f"u{taken.shape[-1]}")[..., 0]
    return bits.view(np.float64) if entry.dtype == "F64" else wide(bits, entry.dtype, "F64")


def lay_over(written: TensorEntry, origin: TensorOrigin) -> int:
    """Write trained rows and columns over a tensor of the output, in place.

    written  the tensor in the output folder, which this job owns
    Returns  bytes of trained values
    """
    trained = origin.trained
    if trained is None:
        return 0
    itemsize = DTYPE_BITS[written.dtype] // 8
    row_bytes = written.size_bytes // max(written.shape[0], 1)
    rows = origin.places.get(0) or Placement(np.arange(written.shape[0]), np.arange(written.shape[0]))
    count = max(WINDOW_BYTES // max(row_bytes, 1), 1)
    source, target = os.open(trained.path, os.O_RDONLY), os.open(written.path, os.O_RDWR)
    try:
        for low in range(0, written.shape[0], count):
            high = min(low + count, written.shape[0])
            first, stop = np.searchsorted(rows.target, [low, high])
            if first == stop:
                continue
            values = _read_rows(source, trained, rows.taken[first:stop], itemsize)
            block = np.empty((high - low, *written.shape[1:]), f"u{itemsize}")
            read_into(target, block.data.cast("B"), written.start + low * row_bytes)
            _put(block, rows.target[first:stop] - low, values, origin)
            write_all(target, block.data.cast("B"), written.start + low * row_bytes)
    finally:
        os.close(source)
        os.close(target)
    return trained.size_bytes


def _read_rows(source: int, entry: TensorEntry, rows: Indices, itemsize: int) -> npt.NDArray[np.unsignedinteger]:
    """Some ascending rows of a tensor, as raw elements."""
    row_bytes = entry.size_bytes // max(entry.shape[0], 1)
    low, high = int(rows.min()), int(rows.max()) + 1
    block = np.empty((high - low, *entry.shape[1:]), f"u{itemsize}")
    read_into(source, block.data.cast("B"), entry.start + low * row_bytes)
    return block[rows - low]


def _put(
    block: npt.NDArray[np.unsignedinteger], rows: Indices, values: npt.NDArray[np.unsignedinteger], origin: TensorOrigin
) -> None:
    """Lay trained values over the base's, in memory; holes of a mask stay the base's."""
    targets: list[Indices] = [rows]
    for dim in range(1, block.ndim):
        place = origin.places.get(dim)
        if place is not None:
            values = np.take(values, place.taken, axis=dim)
        targets.append(np.arange(block.shape[dim]) if place is None else place.target)
    at = np.ix_(*targets)
    block[at] = np.where(values != 0, values, block[at]) if origin.fill else values
