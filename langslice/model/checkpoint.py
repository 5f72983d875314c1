"""What is in a checkpoint: config, tensors with their byte ranges, and where the weights lie.

Nothing is loaded: safetensors headers are parsed and checked (files/safetensors_header.py), and `pytorch_model*.bin`
archives are opened only to learn where each tensor's bytes lie (files/pickle_archive.py). Hub ids become local folders in
hub.py. Files other than the weights are left to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import TensorEntry, damaged, parse_strict_json, read_header
from langslice.model.folder_kinds import (
    CONFIG,
    FolderKind,
    draft_kind,
    foreign_kind,
    not_recognised,
    plain_kind,
    with_tensors,
)
from langslice.model.modules import main_module
from langslice.model.remote_code import trust_code

__all__ = ["Checkpoint", "Shard", "TensorEntry", "open_checkpoint"]

_LONGEST_NAME = 255  # bytes, on every file system in use
SINGLE_FILES = {"safetensors": "model.safetensors", "pickle": "pytorch_model.bin"}
INDEX_FILES = {"safetensors": "model.safetensors.index.json", "pickle": "pytorch_model.bin.index.json"}


@dataclass(frozen=True)
class Shard:
    """One weight file of the source.

    name      file name inside the model folder
    format    "safetensors" or "pickle"
    metadata  the safetensors header's `__metadata__`
    """

    name: str
    path: Path
    format: str
    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder, read but not loaded.

    folder          root of the model as the user named it (sentence-transformers: holds modules.json)
    model_folder    folder with config.json and the weights; differs from `folder` only for sentence-transformers
                    layouts that keep the transformer in a subfolder such as 0_Transformer
    model_id        what the user typed
    revision        resolved commit of a hub model, else None
    config          config.json as written, or what describes the model instead (folder_kinds.py)
    aliases         pickle archives only: name -> name of the tensor whose storage, shape and offset it shares; both are
                    in `tensors`, with one byte range
    index_metadata  `metadata` of the index file, {} for a single file
    notes           sentences a user should see: what was chosen or converted on the way
    scratch         keeps converted tensors of odd pickles on disk for as long as this object lives
    config_file     file of the model folder that holds `config`; "" where no file does
    config_section  where in that file it is, () for all of it
    vocabulary      rows of the vocabulary where no tensor says it: a tokenizer alone, a draft model that shares its target's
    """

    folder: Path
    model_folder: Path
    model_id: str
    revision: str | None
    config: dict[str, Any]
    shards: tuple[Shard, ...]
    aliases: dict[str, str] = field(default_factory=dict)
    index_metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scratch: object = field(default=None, repr=False, compare=False)
    config_file: str = CONFIG
    config_section: tuple[str, ...] = ()
    vocabulary: int | None = None

    @property
    def config_name(self) -> str:
        """Path of the file that holds `config`, below the model's root."""
        return (self.model_folder.relative_to(self.folder) / self.config_file).as_posix()

    @cached_property
    def tensors(self) -> dict[str, TensorEntry]:
        """Every tensor by name, in file order."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by name, in file order."""
        return {tensor.name: tensor.shape for shard in self.shards for tensor in shard.tensors}


def open_checkpoint(
    model: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Read a local folder or a hub id: every header is parsed and checked, no weight is loaded.

    model      folder, hub id such as "org/name", or "mini", the packaged model
    revision   branch, tag or commit of a hub id
    token      of the hub, for gated and private models; by default the one that `hf auth login` stored
    cache_dir  of the hub; by default HF_HUB_CACHE
    trust_remote_code  whether modeling code in the folder is imported; for a type that transformers has not it is needed
    Raises     CheckpointError when anything is missing, damaged, contradictory or not understood
    """
    folder, commit = _local_folder(str(model), revision, token, cache_dir)
    module = main_module(folder)
    model_folder = folder / module.path if module.path else folder
    given = _given_config(model_folder)
    kind = plain_kind(model_folder, module.kind, given)
    if kind is None and not _has_weights(model_folder):
        kind = foreign_kind(model_folder, given, None)
        if kind is not None:
            return _without_weights(folder, model_folder, str(model), commit, kind)
        if given is None:
            read_json_object(model_folder / CONFIG, "a model folder needs one")
    weight_format, names, index, notes = _weight_files(folder, model_folder)
    paths = [resolve_inside(folder, model_folder, name) for name in names]
    shards, aliases, scratch, told = _read_shards(weight_format, names, paths)
    notes += told
    _check_names(shards)
    if index is not None:
        _check_index(model_folder / INDEX_FILES[weight_format], index, shards)
    shapes = {tensor.name: tensor.shape for shard in shards for tensor in shard.tensors}
    kind = _kind_of_weights(model_folder, given, kind, shapes)
    if trust_remote_code and (ran := trust_code(model_folder, kind.config)):
        notes = (*notes, ran)
    return Checkpoint(
        folder,
        model_folder,
        str(model),
        commit,
        kind.config,
        shards,
        aliases,
        (index or {}).get("metadata") or {},
        notes,
        scratch,
        kind.file,
        kind.section,
        kind.rows,
    )


def _read_shards(
    weight_format: str, names: Sequence[str], paths: Sequence[Path]
) -> tuple[tuple[Shard, ...], dict[str, str], object, tuple[str, ...]]:
    """The shards of a folder, their other names of tensors, what must live as long as they are read, and what to say."""
    if weight_format == "safetensors":
        return tuple(_safetensors_shard(name, path) for name, path in zip(names, paths, strict=True)), {}, None, ()
    from langslice.files.pickle_archive import read_archives

    read = read_archives(names, paths)
    shards = tuple(
        Shard(name, path, "pickle", tensors) for name, path, tensors in zip(names, paths, read.tensors, strict=True)
    )
    return shards, read.aliases, read.scratch, read.notes


def _given_config(model_folder: Path) -> dict[str, Any] | None:
    path = model_folder / CONFIG
    return read_json_object(path, "") if _present(path) else None


def _has_weights(model_folder: Path) -> bool:
    return any(_present(model_folder / name) for name in (*SINGLE_FILES.values(), *INDEX_FILES.values()))


def _without_weights(folder: Path, model_folder: Path, model: str, commit: str | None, kind: FolderKind) -> Checkpoint:
    return Checkpoint(
        folder, model_folder, model, commit, kind.config, (), config_file=kind.file, config_section=kind.section,
        vocabulary=kind.rows,
    )  # fmt: skip


def _kind_of_weights(
    model_folder: Path, given: dict[str, Any] | None, kind: FolderKind | None, shapes: Mapping[str, tuple[int, ...]]
) -> FolderKind:
    """What describes a folder with weights: its own config.json where that is of a known model or says which it is."""
    draft = draft_kind(given, shapes)
    if draft is not None:
        return draft
    if kind is not None:
        return with_tensors(kind, shapes)
    found = foreign_kind(model_folder, given, shapes)
    if found is not None:
        return found
    if given is None:
        raise not_recognised(model_folder)
    return FolderKind(given)  # families.py says that it does not know the type


def read_json_object(path: Path, why: str) -> dict[str, Any]:
    """Read a JSON file that must hold one object without repeated keys.

    why      said in the error when the file is missing
    Raises   CheckpointError
    """
    try:
        value = parse_strict_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name} is missing\n  in {path.parent}\n  {why}", "name the folder that holds it"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}\n  {error.strerror or error}", "check the path and its rights"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is not valid JSON\n  {path}\n  {error}", "repair the file or download it again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path.name} is not a JSON object\n  {path}\n  found {type(value).__name__}", "download the file again"
        )
    return value


def resolve_inside(folder: Path, model_folder: Path, name: str) -> Path:
    """Find a weight file of the model folder and follow its symlinks, refusing any way out of the folder.

    folder   the model's root; in the hub's cache layout (.../snapshots/<commit>) links into ../../blobs are allowed
    Raises   CheckpointError when the file is missing or lies elsewhere
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0") or not _is_file_name(name):
        raise CheckpointError(
            f"a shard's name is not a plain file name\n  in {model_folder}\n"
            f"  expected a name in the same folder, found {name!r}",
            "an index that points elsewhere is not trusted; fix its weight_map",
        )
    path = model_folder / name
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError):
        state = "a broken symlink" if path.is_symlink() else "no such file"
        raise CheckpointError(
            f"weight file {name} is missing\n  in {model_folder}\n  found {state}",
            "download the model again; a shard is absent",
        ) from None
    if not lies_inside(folder, resolved):
        raise CheckpointError(
            f"weight file {name} is a link that leaves the model folder\n  {path}\n  points to {resolved}",
            "put the file itself into the folder, or name the folder that it lies in",
        )
    if not resolved.is_file():
        raise CheckpointError(f"weight file {name} is not a file\n  {resolved}", "download the model again")
    return resolved


def lies_inside(folder: Path, resolved: Path) -> bool:
    """Whether a path without symlinks belongs to a model: it lies in its folder, or in the blobs of the hub's cache layout."""
    root = folder.resolve()
    allowed = [root] + ([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])
    return any(resolved.is_relative_to(place) for place in allowed)


def _is_file_name(name: str) -> bool:
    try:
        return len(name.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _local_folder(
    model: str, revision: str | None, token: str | None, cache_dir: Path | None
) -> tuple[Path, str | None]:
    try:
        folder = Path(model).expanduser()
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, RuntimeError) as error:  # too long, after a closed folder, or the home of nobody
        raise CheckpointError(
            f"{model[:_LONGEST_NAME]} cannot be looked up: {getattr(error, 'strerror', None) or error}",
            "name a model folder or a hub id",
        ) from None
    if is_folder:
        return folder.absolute(), None
    if model == "mini":
        from langslice.mini import mini_model_path

        return mini_model_path(), None
    if exists and folder.suffix == ".gguf":
        raise CheckpointError(
            f"{model} is a GGUF file, which only `slice` and `inspect` read", "name the model that it was made from"
        )
    if exists:
        raise CheckpointError(
            f"{model} is a file\n  expected a model folder or a hub id", f"name the folder instead: {folder.parent}"
        )
    from langslice.model.hub import download

    return download(model, revision=revision, token=token, cache_dir=cache_dir)


def _weight_files(folder: Path, model_folder: Path) -> tuple[str, list[str], dict[str, Any] | None, tuple[str, ...]]:
    """Choose the weights as transformers does: safetensors before pickles, a single file before an index."""
    for weight_format, single in SINGLE_FILES.items():
        index_name = INDEX_FILES[weight_format]
        has_single, has_index = (_present(model_folder / name) for name in (single, index_name))
        if has_single:
            note = f"{single} was read; {index_name} next to it was not, as in transformers"
            return weight_format, [single], None, (note,) if has_index else ()
        if has_index:
            index = read_json_object(model_folder / index_name, "")
            return weight_format, _index_shards(model_folder / index_name, index), index, ()
    names = sorted(path.name if path.name.isprintable() else ascii(path.name) for path in model_folder.iterdir())
    expected = ", ".join([*SINGLE_FILES.values(), *INDEX_FILES.values()])
    raise CheckpointError(
        f"no weights found\n  in {model_folder}\n  expected one of {expected}\n"
        f"  found {', '.join(names[:12]) or 'an empty folder'}",
        "convert other formats with transformers' save_pretrained first",
    )


def _present(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _index_shards(path: Path, index: Mapping[str, Any]) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(
            f"{path.name} has no usable weight_map\n  {path}\n  expected tensor names and their files",
            "download the file again",
        )
    if not weight_map:
        raise CheckpointError(f"{path.name} has an empty weight_map\n  {path}", "download the file again")
    if not isinstance(index.get("metadata", {}), dict):
        raise CheckpointError(f"{path.name} has metadata that is not an object\n  {path}", "download the file again")
    return sorted(set(weight_map.values()))


def _safetensors_shard(name: str, path: Path) -> Shard:
    tensors, metadata = read_header(path)
    return Shard(name, path, "safetensors", tensors, metadata)


def _check_names(shards: tuple[Shard, ...]) -> None:
    seen: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in seen:
                raise damaged(
                    shard.path, f"tensor {tensor.name}", "a name of its own", f"the same name in {seen[tensor.name]}"
                )
            seen[tensor.name] = shard.name
    if not seen:
        raise CheckpointError(f"no tensors found\n  in {shards[0].path}", "download the model again")


def _check_index(path: Path, index: Mapping[str, Any], shards: tuple[Shard, ...]) -> None:
    """Compare an index with what its shards hold, tensor by tensor."""
    expected: dict[str, str] = index["weight_map"]
    found = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{path.name} disagrees with the shards\n  {path}\n  tensor {name}: expected in "
                f"{expected.get(name, 'no shard (not in the index)')}, found in {found.get(name, 'no shard')}",
                "index and shards come from different versions; download the model again",
            )
