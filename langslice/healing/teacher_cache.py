"""A teacher's top-k logits for every sequence that a run will read, on disk: teacher and slice need not be in memory together.

    DIR/KEY/key.json      what the guesses belong to
    DIR/KEY/ids.npy       (positions, k) int32: the slice's rows, best first
    DIR/KEY/shares.npy    (positions, k) float16: log probabilities over all kept rows
    DIR/KEY/starts.npy    (sequences + 1,) int64: where the positions of each sequence of text begin

KEY is a digest of teacher, sequences of tokens, objective and settings: another text, tokenizer or teacher never meets old logits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import HealError
from langslice.healing.distillation import labelled
from langslice.healing.objectives import Examples
from langslice.healing.options import HealOptions
from langslice.healing.teacher import Mapped, Teacher
from langslice.progress import Report, silent

_FORMAT = "langslice-teacher/1"


@dataclass(frozen=True)
class TopLogits:
    """An opened cache."""

    folder: Path
    ids: Any
    shares: Any
    starts: Any

    def of(self, sequences: Sequence[int]) -> tuple[Any, Any]:
        """Ids (positions, k) int64 and log probabilities (positions, k) of some sequences of text, one after the other."""
        import torch

        spans = [slice(int(self.starts[sequence]), int(self.starts[sequence + 1])) for sequence in sequences]
        ids = np.concatenate([self.ids[span] for span in spans]).astype(np.int64)
        shares = np.concatenate([self.shares[span] for span in spans]).astype(np.float32)
        return torch.from_numpy(ids), torch.from_numpy(shares)


def cache_key(mapped: Mapped, examples: Examples, settings: HealOptions) -> dict[str, Any]:
    """What guesses depend on."""
    objective = examples.objective
    return {
        "format": _FORMAT,
        "teacher": mapped.digest,
        "rows": examples.sequences.digest(),
        "map": hashlib.sha256(np.ascontiguousarray(mapped.rows, dtype="<i8").tobytes()).hexdigest(),
        "objective": [objective.name, list(objective.frame.before), list(objective.frame.after), objective.mask],
        "sentinels": list(objective.sentinels),
        "top": settings.teacher_top,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "places": len(examples),
    }


def open_top_logits(folder: Path, key: Mapping[str, Any]) -> TopLogits | None:
    """The guesses of a key, where they were finished."""
    place = _place(folder, key)
    try:
        found = json.loads((place / "key.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise HealError(f"{place / 'key.json'} is not readable: {error}", "remove that folder") from error
    if found != key:
        raise HealError(f"{place} holds the guesses of another teacher or text", "remove that folder")
    return TopLogits(place, *(np.load(place / f"{name}.npy", mmap_mode="r") for name in ("ids", "shares", "starts")))


def cache_top_logits(
    folder: Path,
    key: Mapping[str, Any],
    mapped: Mapped,
    examples: Examples,
    settings: HealOptions,
    *,
    device: Any = "cpu",
    report: Report = silent,
) -> TopLogits:
    """Ask the teacher about every sequence of the run; it is in memory only meanwhile.

    Raises  HealError when the folder cannot be made
    """
    import torch

    place = _place(folder, key)
    unfinished = place.with_name(f".{place.name}.partial-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise HealError(
            f"--teacher-cache {folder}: {error.strerror}", "name a folder that can be written to"
        ) from error
    try:
        teacher = Teacher(mapped, streamed=settings.stream_teacher, dtype=torch.float32, device=device)
        parts: dict[str, list[Any]] = {"ids": [], "shares": []}
        counts = np.zeros(len(examples.sequences), dtype=np.int64)
        needed = sorted({examples.sequence(place) for place in range(len(examples))})
        for first in range(0, len(needed), settings.batch_size):
            report(f"asking the teacher, {first:,} of {len(needed):,} sequences", first, len(needed))
            sequences = needed[first : first + settings.batch_size]
            batch = examples.collate([examples.of_sequence(sequence) for sequence in sequences])
            batch = {name: value.to(device) for name, value in batch.items()}
            logits = teacher(batch)["logits"]
            shifted = examples.objective.name == "causal"
            picked = torch.log_softmax(labelled(logits, batch["labels"], shifted=shifted) / settings.temperature, -1)
            best = picked.topk(min(settings.teacher_top, picked.shape[-1]), -1)
            parts["ids"].append(best.indices.cpu().numpy().astype(np.int32))
            parts["shares"].append(best.values.cpu().numpy().astype(np.float16))
            labels = batch["labels"][:, 1:] if shifted else batch["labels"]
            counts[sequences] = (labels >= 0).sum(1).cpu().numpy()
        for name, arrays in parts.items():
            np.save(unfinished / f"{name}.npy", np.concatenate(arrays))
        np.save(unfinished / "starts.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        (unfinished / "key.json").write_text(json.dumps(key, indent=1), encoding="utf-8")
        if place.exists():  # another process was quicker
            shutil.rmtree(unfinished)
        else:
            unfinished.rename(place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    found = open_top_logits(folder, key)
    if found is None:
        raise HealError(f"{place} vanished while it was written", "is another run cleaning that folder?")
    return found


def _place(folder: Path, key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder.expanduser() / digest[:16]
