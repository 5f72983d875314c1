"""What a pruning run has done so far, on disk, so that a killed run continues after its last finished block.

The edits of a block are written here before its tensors are touched: a run that dies in between writes them again, and
never looks at half-pruned weights. Without a folder nothing is written and nothing can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import PlanError
from langslice.files.copy_ranges import fsync_path
from langslice.files.safetensors_header import TensorEntry
from langslice.sparsity.report import TensorSparsity
from langslice.sparsity.weight_bytes import write_tensor, writing, zero_rows

STATE, EDITS = "sparsity.json", "sparsity-edits.bin"

Edit = tuple[TensorEntry, "npt.NDArray[np.uint8] | memoryview"]
"""A tensor with a mask in bits as it is stored (row-major, True means zero), or with new bytes in its own type."""


class Journal:
    """The finished blocks of one run.

    folder       where to write, None for nowhere
    fingerprint  of the model, the request and the prompts; another one in the folder is refused
    """

    def __init__(self, folder: Path | None, fingerprint: str, tensors: Mapping[str, TensorEntry]) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self.finished: list[str] = []
        self.tensors: dict[str, TensorSparsity] = {}
        self.shares: dict[str, float] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self._read(tensors)

    @property
    def resumes(self) -> bool:
        """Whether an earlier run left something."""
        return bool(self.finished)

    def settle_shares(self, shares: Mapping[str, float]) -> None:
        """Remember what an allocation gave, which cannot be measured again once weights are gone."""
        self.shares = dict(shares)
        self._save()

    def commit(self, block: str, edits: list[Edit], sparsity: Mapping[str, TensorSparsity]) -> None:
        """Apply the edits of a block to its files, such that a kill at any moment loses nothing.

        edits  a tensor with its mask, (ceil(elements / 8),) uint8 in bits, or with its new bytes, (size_bytes,)
        """
        if self._folder is not None:
            self._write_edits(self._folder, edits)
            self._save({"block": block, "tensors": _as_json(sparsity), "edits": [_described(edit) for edit in edits]})
        _apply(edits)
        self._finish(block, sparsity)

    def _finish(self, block: str, sparsity: Mapping[str, TensorSparsity]) -> None:
        self.finished.append(block)
        self.tensors.update(sparsity)
        self._save()
        if self._folder is not None:
            (self._folder / EDITS).unlink(missing_ok=True)

    def _save(self, pending: dict[str, Any] | None = None) -> None:
        if self._folder is None:
            return
        state = {
            "fingerprint": self._fingerprint,
            "finished": self.finished,
            "tensors": _as_json(self.tensors),
            "shares": self.shares,
            "pending": pending,
        }
        temporary = self._folder / (STATE + ".new")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        fsync_path(temporary)
        temporary.replace(self._folder / STATE)
        fsync_path(self._folder)

    @staticmethod
    def _write_edits(folder: Path, edits: list[Edit]) -> None:
        path = folder / EDITS
        with path.open("wb") as file:
            for _, data in edits:
                file.write(data.data if isinstance(data, np.ndarray) else data)
        fsync_path(path)

    def _read(self, tensors: Mapping[str, TensorEntry]) -> None:
        folder = self._folder or Path()
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["fingerprint"] != self._fingerprint:
            raise PlanError(
                f"the work folder belongs to another run\n  {folder}\n"
                "  expected the same model, options and calibration data as when it was begun",
                hint="name another folder, or remove this one to begin anew",
            )
        self.finished, self.shares = list(state["finished"]), dict(state["shares"])
        self.tensors = _from_json(state["tensors"])
        pending = state["pending"]
        if pending is None:
            return
        edits: list[Edit] = []
        with (folder / EDITS).open("rb") as file:
            for name, is_mask, size_bytes in pending["edits"]:
                data = file.read(size_bytes)
                edits.append((tensors[name], np.frombuffer(data, dtype=np.uint8) if is_mask else memoryview(data)))
        _apply(edits)
        self._finish(pending["block"], _from_json(pending["tensors"]))


def _apply(edits: list[Edit]) -> None:
    with writing([entry for entry, _ in edits]) as descriptors:
        for entry, data in edits:
            descriptor = descriptors[entry.path]
            if isinstance(data, np.ndarray):
                rows, columns = entry.shape
                # Rows are unpacked some thousand at a time: unpacked, a mask takes eight times the memory.
                step = 8 * max((1 << 21) // columns, 1)
                for first in range(0, rows, step):
                    count = min(step, rows - first) * columns
                    begin = first * columns // 8
                    bits = np.unpackbits(data[begin : begin + (count + 7) // 8], count=count)
                    zero_rows(descriptor, entry, first, bits.view(np.bool_).reshape(-1, columns))
            else:
                write_tensor(descriptor, entry, data)


def _described(edit: Edit) -> tuple[str, bool, int]:
    entry, data = edit
    return entry.name, isinstance(data, np.ndarray), data.nbytes


def _as_json(tensors: Mapping[str, TensorSparsity]) -> dict[str, Any]:
    return {name: asdict(item) for name, item in tensors.items()}


def _from_json(tensors: Mapping[str, Any]) -> dict[str, TensorSparsity]:
    return {name: TensorSparsity(**{**item, "shape": tuple(item["shape"])}) for name, item in tensors.items()}
