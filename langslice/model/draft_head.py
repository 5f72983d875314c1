"""Draft models of EAGLE-3's kind: an output head over some of the target's tokens, and the map between both numberings.

    d2t   (draft vocabulary,) integers: draft id + d2t[draft id] is the target's id
    t2d   (target vocabulary,) whether the target's id has a draft id; not read by clients, but by trainers

Source: vllm/model_executor/models/llama_eagle3.py at 00bd149, SGLang's llama_eagle3.py at 03d5a77, conversion/llama.py and
src/models/eagle3.cpp of llama.cpp at 0274f0f, vocab_mapping.py of speculators at 1f7db3a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import TensorEntry
from langslice.model.checkpoint import Checkpoint
from langslice.model.folder_kinds import DRAFT, DRAFT_SIZE, DRAFT_WHOLE

D2T, T2D, HEAD = "d2t", "t2d", "lm_head.weight"
_INTEGERS = {"I64": "<i8", "I32": "<i4"}
_FLAGS = {"BOOL": "u1", "U8": "u1"}


@dataclass(frozen=True, eq=False)
class DraftMap:
    """The tokens of a draft's output head.

    targets  (draft vocabulary,) int64: the target's id of every draft id, all different
    rows     of the target's vocabulary
    """

    targets: np.ndarray
    rows: int

    @property
    def offsets(self) -> np.ndarray:
        """`d2t`: (draft vocabulary,) int64."""
        return self.targets - np.arange(len(self.targets))

    @property
    def flags(self) -> np.ndarray:
        """`t2d`: (rows,) bool."""
        found = np.zeros(self.rows, dtype=bool)
        found[self.targets] = True
        return found

    def kept(self, new_of: np.ndarray) -> np.ndarray:
        """Draft ids whose target stays, in order: (n,) int64.

        new_of  (rows,) new id of every target id, -1 where it goes
        """
        return np.flatnonzero(new_of[self.targets] >= 0)

    def renumbered(self, new_of: np.ndarray, rows: int) -> DraftMap:
        """The map between what stays of both vocabularies.

        new_of  (old rows,) new id of every target id, -1 where it goes
        rows    of the sliced target, padding included

        Targets 0, 3, 7 of which 3 goes, and 7 becomes 5: targets 0, 5, of `d2t` 0, 4.
        """
        return DraftMap(new_of[self.targets[self.kept(new_of)]], rows)


def is_draft(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's description is that of a draft model."""
    return config.get("model_type") in (DRAFT, DRAFT_WHOLE)


def read_draft_map(checkpoint: Checkpoint, rows: int) -> DraftMap | None:
    """The map of a draft; None for one whose head has the target's numbering, and for what is no draft.

    rows    of the target's vocabulary
    Raises  CheckpointError where tensors and config.json contradict each other
    """
    tensors = checkpoint.tensors
    if not is_draft(checkpoint.config):
        return None
    if D2T not in tensors:
        if T2D in tensors:
            raise _contradiction(checkpoint, f"it has {T2D} and no {D2T}, by which clients map draft ids")
        return None
    targets = _values(checkpoint, tensors[D2T], _INTEGERS).astype(np.int64) + np.arange(tensors[D2T].shape[0])
    stated = checkpoint.config.get(DRAFT_SIZE)
    for name, size in ((DRAFT_SIZE, stated), (HEAD, tensors[HEAD].shape[0] if HEAD in tensors else None)):
        if size is not None and size != len(targets):
            raise _contradiction(checkpoint, f"{D2T} has {len(targets)} draft ids, {name} says {size}")
    outside = np.flatnonzero((targets < 0) | (targets >= rows))
    if outside.size:
        at = int(outside[0])
        raise _contradiction(checkpoint, f"{D2T}: draft id {at} is target id {targets[at]}, of {rows}")
    if len(np.unique(targets)) != len(targets):
        raise _contradiction(checkpoint, f"{D2T}: two draft ids have one target id")
    found = DraftMap(targets, rows)
    if T2D in tensors:
        differing = np.flatnonzero(_values(checkpoint, tensors[T2D], _FLAGS).astype(bool) != found.flags)
        if differing.size:
            raise _contradiction(
                checkpoint, f"{T2D} and {D2T} disagree about {differing.size} target ids, the first {differing[0]}"
            )
    return found


def _values(checkpoint: Checkpoint, entry: TensorEntry, dtypes: Mapping[str, str]) -> np.ndarray:
    if entry.dtype not in dtypes or len(entry.shape) != 1:
        raise _contradiction(
            checkpoint, f"{entry.name} is {entry.dtype} {entry.shape}, expected one dimension of {' or '.join(dtypes)}"
        )
    return np.fromfile(entry.path, dtypes[entry.dtype], entry.shape[0], offset=entry.start)


def write_values(entry: TensorEntry, values: np.ndarray) -> None:
    """Write `d2t` or `t2d` over what is in a file of the output, in the type that the tensor has.

    values  (n,), as many as the tensor has
    """
    table = np.memmap(entry.path, {**_INTEGERS, **_FLAGS}[entry.dtype], "r+", entry.start, entry.shape)
    table[:] = values
    table.flush()


def _contradiction(checkpoint: Checkpoint, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.model_id} is a damaged draft model: {fault}; nothing was written",
        "download it again, or ask whoever trained it",
    )
