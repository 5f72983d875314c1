"""slice.json: what was done to which source, the maps back to it, and verification."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.errors import PlanError
from langslice.files.gather_rows import sliced_shape
from langslice.files.hashing import file_sha256
from langslice.files.json_forms import check_form, read_json
from langslice.invocation import typed_command
from langslice.model.checkpoint import Checkpoint, Shard
from langslice.planning.plan import SlicePlan, load_plan, plan_from_json, write_plan
from langslice.tokenizer import Rewrite
from langslice.verification.file_names import FILE_NAME as FILE_NAME
from langslice.version import __version__
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from langslice.verification.main import Verification

FORMAT = "langslice-slice/1"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "wordfreq", "langcodes")
_FORM = {"sparsity?": (None, {"tensors": {"*": {"zeros": int, "size": int}}}), "new_to_old": list}
_WINDOW = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write_record(
    folder: Path,
    checkpoint: Checkpoint,
    plan: SlicePlan,
    rewrite: Rewrite,
    left_out: Mapping[str, str],
    verification: Verification | None,
    pruned: Mapping[str, Any] | None = None,
    parts: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
    pre_tokenizer_hash: str | None = None,
) -> dict[str, Any]:
    """Write slice.json into the output: plan, maps, versions, hashes of the source, and verification.

    pruned   the report of weight pruning, with the zeros of each tensor
    parts    what `part_table` gives
    pre_tokenizer_hash  by which llama.cpp tells the source's tokenizer from others; None for one that needs no name
    Returns  everything in it but the plan and its map
    """
    head: dict[str, Any] = {
        "format": FORMAT,
        "versions": library_versions(),
        "source": {
            "model": checkpoint.model_id,
            "revision": checkpoint.revision,
            "config": checkpoint.config,
            "files": _source_hashes(checkpoint, whole_weights=verification is not None),
            "slice": _earlier(checkpoint),
        },
        "pre_tokenizer_hash": pre_tokenizer_hash,
        "tokenizer_files": dict(rewrite.written),
        "left_out": dict(left_out),
        "proof": None if verification is None else verification.to_json(),
        "sparsity": None if pruned is None else dict(pruned),
        "command": list(typed_command()),
        "parts": {name: {key: list(pair) for key, pair in part.items()} for name, part in (parts or {}).items()},
        "files": _file_sizes(folder),
    }
    text = json.dumps(head, ensure_ascii=False, indent=1)[:-2]
    rows = plan.new_to_old
    # Some thousand at a time: as a list of Python's numbers a large vocabulary would take tens of megabytes.
    maps = ",".join(",".join(map(str, rows[at : at + _WINDOW].tolist())) for at in range(0, len(rows), _WINDOW))
    write_plan(plan, folder / FILE_NAME, f'{text},\n "new_to_old": [{maps}],\n "plan": ', "}\n")
    return head


def part_table(
    plan: SlicePlan, edits: Mapping[str, TensorEdit], checkpoint: Checkpoint
) -> dict[str, dict[str, tuple[int, int]]]:
    """Tensors, parameters and bytes of each part, each before and after; storage that two names share counts once."""
    sums: dict[str, list[int]] = {}
    for name, tensor in plan.tensors.items():
        edit, size_bytes, before = edits[name], checkpoint.tensors[name].size_bytes, prod(tensor.shape)
        if name in checkpoint.aliases and edit.action == "drop":
            continue
        after = 0 if edit.action == "drop" else prod(sliced_shape(tensor.shape, edit.indices))
        row = (1, int(edit.action != "drop"), before, after, size_bytes, size_bytes * after // max(before, 1))
        sums[tensor.part] = [x + y for x, y in zip(sums.get(tensor.part, [0] * 6), row, strict=True)]
    return {
        part: {"tensors": (row[0], row[1]), "parameters": (row[2], row[3]), "size_bytes": (row[4], row[5])}
        for part, row in sums.items()
    }


def _file_sizes(folder: Path) -> dict[str, int]:
    """Every file of the slice and its size, by which what is added later can be told from what was verified."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def read_document(path: Path) -> dict[str, Any]:
    """Read a slice.json as it is.

    Raises   PlanError when it is missing, damaged or of another format
    """
    if not path.parent.is_dir():
        raise PlanError(f"{path.parent}: no such folder", hint="name a folder that `langslice slice` made")
    try:
        document = read_json(path, PlanError, halves=True)
    except FileNotFoundError as error:
        raise PlanError(
            f"{path.parent} has no {path.name}", hint="is this a folder that `langslice slice` made?"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PlanError(f"{path}: expected format {FORMAT}")
    check_form(document, _FORM, str(path), PlanError, "the file was edited; slice again")
    return document


def read_record(folder: Path) -> SlicePlan:
    """Read the plan back from a slice; raises as `read_whole_record` does."""
    return read_whole_record(folder)[1]


def read_whole_record(folder: Path) -> tuple[dict[str, Any], SlicePlan]:
    """Read slice.json: everything in it but the plan and its map, and the plan.

    Raises   PlanError as `read_document` does, and when the plan or its map was edited
    """
    path = folder / FILE_NAME
    document = read_document(path)
    plan = plan_from_json(document.get("plan"), place=str(path))
    if document.get("new_to_old") != plan.new_to_old.tolist():
        raise PlanError(
            f"{path}: `new_to_old` is not the map of the plan next to it", hint="the file was edited; slice again"
        )
    head = {key: value for key, value in document.items() if key not in ("plan", "new_to_old")}
    return head, replace(plan, pruned=document.get("sparsity") or {}, trained=bool(document.get("healed")))


def read_plan_at(path: Path) -> tuple[SlicePlan, Path]:
    """A plan from wherever a user says that it is, and the folder of the slice as far as that tells.

    path     a slice's folder, its slice.json, or a plan's file
    Raises   PlanError
    """
    if path.is_dir():
        return read_record(path), path
    return (read_record(path.parent) if path.name == FILE_NAME else load_plan(path)), path.parent


def library_versions() -> dict[str, str | None]:
    """The version of this program, of Python, and of the libraries that shape a result; None for one that is absent."""
    own = {"langslice": __version__, "python": platform.python_version()}
    return {**own, **installed_versions(_LIBRARIES)}


def installed_versions(libraries: Sequence[str]) -> dict[str, str | None]:
    """The version of each library, None for one that is absent."""
    return {library: _installed(library) for library in libraries}


@cache
def _installed(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _source_hashes(checkpoint: Checkpoint, *, whole_weights: bool) -> dict[str, dict[str, Any]]:
    """sha256 of config and of every shard; of a shard's header alone where its whole bytes were not to be read again."""
    hashes: dict[str, dict[str, Any]] = {}
    config = checkpoint.model_folder / checkpoint.config_file
    if checkpoint.config_file:
        hashes[checkpoint.config_file] = {"size_bytes": config.stat().st_size, "sha256": file_sha256(config)}
    for shard in checkpoint.shards:
        entry: dict[str, Any] = {"size_bytes": shard.path.stat().st_size, "tensors_sha256": _tensor_digest(shard)}
        if _SHA256.fullmatch(shard.path.name):
            # The hub's cache names large files by the sha256 of their content.
            entry["sha256"] = shard.path.name
        elif whole_weights:
            entry["sha256"] = file_sha256(shard.path)
        hashes[shard.name] = entry
    return hashes


def _tensor_digest(shard: Shard) -> str:
    """sha256 over the names, dtypes, shapes and places of a shard's tensors."""
    digest = hashlib.sha256()
    for tensor in shard.tensors:
        digest.update(f"{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0{tensor.start}\n".encode())
    return digest.hexdigest()


def _earlier(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Source and map of an earlier slice, when a slice is sliced again, so that the way back to the first model stays.

    None where the source has no slice.json, or one that cannot be read and so leads nowhere.
    """
    path = checkpoint.folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        document = read_json(path, PlanError, halves=True)
    except PlanError:
        document = None
    if not isinstance(document, dict):
        return None
    return {"source": document.get("source"), "new_to_old": document.get("new_to_old")}
