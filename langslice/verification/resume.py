"""A slice that is written and verified, but whose weights are not all pruned yet: kept so that a killed run goes on.

Cutting takes minutes and is done again; pruning takes hours. So the unfinished folder of a slice that prunes weights carries,
in `.unfinished`, what the slice has found out and the journal of pruning (sparsity/journal.py). The same command finds it
by a key over everything that decides the result, continues after the last finished block, and removes it at the end.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langslice.corpus.sources import CorpusFile, find_corpora
from langslice.errors import CheckpointError
from langslice.files.copy_ranges import fsync_path
from langslice.files.hashing import file_sha256
from langslice.model.checkpoint import Checkpoint
from langslice.options import listed
from langslice.planning.plan import SlicePlan, plan_text
from langslice.planning.side_files import SideFile
from langslice.planning.source import Source
from langslice.tokenizer import Rewrite
from langslice.verification.main import Verification, verification_from_json
from langslice.verification.record import library_versions
from langslice.writing.shards import WriteReport

FOLDER = ".unfinished"
_STATE = "cut.json"
_JOURNAL = "pruning"


@dataclass(frozen=True)
class WrittenSlice:
    """What is known of a slice once its shards are written and compared with the source; verification is None without one."""

    rewrite: Rewrite
    written: WriteReport
    verification: Verification | None


def work_key(source: Source, plan: SlicePlan, *, verify: str, text: Sequence[str]) -> str:
    """Digest of all that decides what a slice becomes: plan, source files, calibration data, held-out text, libraries."""
    weights = plan.weights or {}
    demonstrations = [*listed(weights.get("keep_demos")), *listed(weights.get("avoid_demos"))]
    held_out = [corpus.path for corpus in find_corpora(text)[0] if isinstance(corpus, CorpusFile)] if text else []
    document = {
        "plan": plan_text(plan),
        "weights": dict(weights),
        "demonstrations": [file_sha256(Path(path)) for path in demonstrations if Path(path).is_file()],
        "files": file_states(source.checkpoint, source.files) + [_state_of(path) for path in held_out],
        "verify": [verify, *text],
        "versions": library_versions(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def file_states(checkpoint: Checkpoint, files: Sequence[SideFile]) -> list[list[Any]]:
    """Path, size and time of the last change of every file that a slice reads from its source."""
    paths = [shard.path for shard in checkpoint.shards] + [checkpoint.folder / file.name for file in files]
    return [_state_of(path) for path in paths]


def check_unchanged(checkpoint: Checkpoint, files: Sequence[SideFile], before: list[list[Any]]) -> None:
    """Refuse what was made of a source that somebody wrote to meanwhile.

    Raises  CheckpointError that names the first such file
    """
    try:
        after = file_states(checkpoint, files)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"the source changed while it was read\n  {error.filename} is gone",
            "nothing was kept; run the command again",
        ) from None
    for one, other in zip(before, after, strict=True):
        if one != other:
            raise CheckpointError(
                f"the source changed while it was read\n  {one[0]}", "nothing was kept; run the command again"
            )


def _state_of(path: Path) -> list[Any]:
    """Enough to notice that a file was written since: hashing gigabytes would take longer than slicing them."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def journal_folder(staging: Path) -> Path:
    """Where the journal of pruning is in an unfinished slice."""
    return staging / FOLDER / _JOURNAL


def save_written_slice(staging: Path, key: str, state: WrittenSlice) -> None:
    """Remember a slice, after every byte of it is on disk."""
    for path in (*staging.rglob("*"), staging):
        fsync_path(path)
    folder = staging / FOLDER
    folder.mkdir()
    document = {
        "key": key,
        "rewrite": asdict(state.rewrite),
        "written": asdict(state.written),
        "proof": None if state.verification is None else state.verification.to_json(),
    }
    temporary = folder / (_STATE + ".new")
    temporary.write_text(json.dumps(document), encoding="utf-8")
    fsync_path(temporary)
    temporary.replace(folder / _STATE)
    fsync_path(folder)


def read_written_slice(staging: Path, key: str) -> WrittenSlice | None:
    """The slice that is in an unfinished folder; None where there is none, or it is of other work."""
    try:
        document = json.loads((staging / FOLDER / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if document.get("key") != key:
        return None
    written = {**document["written"], "files": tuple(document["written"]["files"])}
    return WrittenSlice(
        Rewrite(**document["rewrite"]),
        WriteReport(**{**written, "notes": tuple(written["notes"])}),
        None if document["proof"] is None else verification_from_json(document["proof"]),
    )


def forget(staging: Path) -> None:
    """Remove what would be no part of a finished slice."""
    shutil.rmtree(staging / FOLDER, ignore_errors=True)
