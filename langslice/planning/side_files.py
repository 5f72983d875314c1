"""The files other than the weights: carried, renumbered, rewritten by others, or left out with a reason.

Nothing stale stays next to new weights: exports and other formats of the old ones are left out, and so is every
vocabulary file that was not rewritten. A file that matches no row below stops the job.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from shlex import quote
from typing import Any

from langslice.errors import CheckpointError
from langslice.files.json_forms import parse_json
from langslice.model.checkpoint import Checkpoint, lies_inside
from langslice.model.modules import ModuleFolders, module_folders
from langslice.model.token_id_fields import IdField, IdMap, find_id_fields, renumber
from langslice.planning.side_weights import OWN_NAMES, is_weights, why_left_out
from langslice.planning.token_keys import LEAST_ENTRIES, gives_ids, has_keyed_lines, is_keyed
from langslice.tokenizer import open_tokenizer

# Name of a configuration file and its content -> its content with the fields of another structure.
Restructure = Callable[[str, dict[str, Any]], dict[str, Any]]

KEPT_IDS = "kept_ids.npy"
_OLD_WEIGHTS = "holds, or lists, the old weights in another format"
_INDEXES = ("*.index.json", "*.index.*.json")
# Next to weights that an adapter does not belong to, transformers would load the base that the adapter names.
_ADAPTER = (
    "an adapter next to the weights, for which transformers loads the base that it names; see `langslice adapter`"
)
_TRAINING = "state of the source's training run"
_VOCABULARY = "a vocabulary file of the source that was not rewritten"

# First match wins; patterns are matched against the path below the model's root and against the file name.
_LEFT_OUT = (
    ("onnx/*", "an ONNX export of the old weights"),
    ("*.onnx", "an ONNX export of the old weights"),
    ("*.onnx_data", "an ONNX export of the old weights"),
    ("*.gguf", "a GGUF conversion of the old weights"),
    ("*.ggml", "a GGML conversion of the old weights"),
    ("openvino*", "an OpenVINO export of the old weights"),
    ("coreml/*", "a Core ML export of the old weights"),
    ("*.mlmodel", "a Core ML export of the old weights"),
    ("*.mlpackage/*", "a Core ML export of the old weights"),
    ("*.msgpack", "Flax weights of the source"),
    ("*.h5", "TensorFlow weights of the source"),
    ("*.tflite", "a TensorFlow Lite export of the old weights"),
    ("*.ot", "Rust weights of the source"),
    ("original/*", "the source's weights in its first format"),
    ("consolidated*", "the source's weights in its first format"),
    ("optimizer*", _TRAINING),
    ("scheduler.pt", _TRAINING),
    ("scaler.pt", _TRAINING),
    ("rng_state*.pth", _TRAINING),
    ("training_args.bin", _TRAINING),
    ("trainer_state.json", _TRAINING),
    ("global_step*/*", _TRAINING),
    ("runs/*", _TRAINING),
    ("events.out.tfevents*", _TRAINING),
    ("*.npz", "Flax weights of the source"),
    (".git/*", "version control of the source"),
    (".cache/*", "download cache of the source"),
    ("__pycache__/*", "compiled Python"),
    (".DS_Store", "a folder view"),
    ("vocab.txt", _VOCABULARY),
    ("vocab.json", _VOCABULARY),
    ("merges.txt", _VOCABULARY),
    ("dict*.txt", _VOCABULARY),
    ("tokenizer.json", _VOCABULARY),
    ("tokenizer_config.json", _VOCABULARY),
    ("special_tokens_map.json", _VOCABULARY),
    ("added_tokens.json", _VOCABULARY),
    ("*.model", _VOCABULARY),
    ("*.spm", _VOCABULARY),
    ("*.tiktoken", _VOCABULARY),
    ("*.vocab", _VOCABULARY),
    ("*.vocab.bpe", _VOCABULARY),
    ("bpe.codes", _VOCABULARY),
    ("tekken.json", _VOCABULARY),
    ("healing.*", "the record of the source's healing"),
    ("slice.json", "the record of an earlier slice, kept inside the new one as its source"),
    ("restore.json", "the record of how the source was put together"),
    ("report.html", "the report of an earlier slice"),
    ("healing.parquet", "losses of an earlier slice's training"),
    (KEPT_IDS, "the old ids of an earlier slice"),
)
_CARRIED = (
    "README*", "LICEN[SC]E*", "NOTICE*", "COPYING*", "CITATION*", "CHANGELOG*", "*USE_POLICY*", "*.md", "*.rst", "*.txt",
    "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp", "*.jinja", ".gitattributes", ".gitignore", "*.yaml",
    "*.yml", "*.toml", "*.py", "*.ipynb", "*.sh", "*.csv", "*.tsv", "*.html",
)  # fmt: skip
# Fields of modules after the transformer that may be as long as the vocabulary, as those of a sparse encoder are.
_MODULE_SIZES = ("embedding_dimension", "word_embedding_dimension", "in_features", "out_features", "input_dim")


@dataclass(frozen=True)
class SideFile:
    """A file of the source that is neither weights nor tokenizer.

    name    path below the model's root
    action  "carry" | "renumber" | "convert" (a small module's pickle, to safetensors) | "leave out", and what
            derived_files.py does: "weights" (sliced along what is sliced), "by token" (keyed by it), "tokenizer" (of a module)
    reason  why, for "leave out"
    sizes   for "renumber": fields that are a size of the vocabulary where they are as large
    """

    name: str
    action: str
    reason: str = ""
    sizes: tuple[str, ...] = ()


def stale_reason(name: str) -> str:
    """Why a file other than weights must not stay next to newly trained ones of the same vocabulary; "" where it may.

    name  path below the model's root
    """
    keeping = (_VOCABULARY, "the record of an earlier slice, kept inside the new one as its source")
    old = tuple((pattern, _OLD_WEIGHTS) for pattern in (*OWN_NAMES, *_INDEXES, "*.ckpt"))
    for pattern, reason in (*_LEFT_OUT, *old, ("adapter_*", _ADAPTER)):
        if reason not in keeping and (fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)):
            return reason
    return ""


def plan_side_files(
    checkpoint: Checkpoint,
    tokenizer_files: Collection[str],
    *,
    carry: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    tokens: Sequence[str | None] = (),
) -> list[SideFile]:
    """Say for every file of the model's root what happens to it.

    tokenizer_files  names, relative to `checkpoint.model_folder`, that the tokenizer's own writer looks after
    carry, leave_out patterns by which the user settles files that no row knows
    tokens           the tokenizer's, by which files that are keyed by token are known
    """
    prefix = checkpoint.model_folder.relative_to(checkpoint.folder)
    looked_after = {(prefix / name).as_posix() for name in tokenizer_files}
    looked_after |= {(prefix / shard.name).as_posix() for shard in checkpoint.shards if shard.format == "safetensors"}
    settled = _Settled(
        module_folders(checkpoint.folder, checkpoint.model_folder),
        carry,
        leave_out,
        {token: old for old, token in enumerate(tokens) if token is not None},
    )
    planned: list[SideFile] = []
    for path in sorted(checkpoint.folder.rglob("*")):
        name = path.relative_to(checkpoint.folder).as_posix()
        fault = _fault_of_path(checkpoint, path, name)
        if fault:
            raise CheckpointError(
                f"{shown(name)} is {fault}, in {checkpoint.folder}; nothing was written",
                hint="remove it, or put a file there",
            )
        if path.is_dir():
            continue
        if name in looked_after or (prefix / "model.safetensors.index.json").as_posix() == name:
            continue
        planned.append(_plan_file(checkpoint, name, settled))
    return planned


def _fault_of_path(checkpoint: Checkpoint, path: Path, name: str) -> str:
    """What keeps a path below the model's root from being a file or a folder that can be carried; "" for nothing."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    if path.is_symlink():
        if not path.is_file():
            return "a link to a folder, which is not followed" if path.is_dir() else "a broken link"
        return (
            ""
            if lies_inside(checkpoint.folder, path.resolve())
            else f"a link that leaves the folder, to {path.resolve()}"
        )
    return "" if path.is_file() or path.is_dir() else "neither a file nor a folder"


def shown(name: str) -> str:
    """A name as it is in messages: quoted where a line end or a sign that turns the text around would mislead."""
    return name if name.isprintable() else ascii(name)


@dataclass(frozen=True)
class _Settled:
    """What holds for all files: folders of modules, the user's patterns, and token -> id."""

    folders: ModuleFolders
    carry: Sequence[str]
    leave_out: Sequence[str]
    ids: Mapping[str, int]


def _plan_file(checkpoint: Checkpoint, name: str, settled: _Settled) -> SideFile:
    file_name = name.rpartition("/")[2]

    def matches(pattern: str) -> bool:
        return fnmatch(name, pattern) or fnmatch(file_name, pattern)

    if any(matches(pattern) for pattern in settled.leave_out):
        return SideFile(name, "leave out", "left out on request")
    if any(matches(pattern) for pattern in settled.carry):
        return SideFile(name, "carry")
    planned = _plan_in_module(checkpoint, name, settled.folders)
    if planned is not None:
        return planned
    for pattern, reason in _LEFT_OUT:
        if matches(pattern):
            return SideFile(name, "leave out", reason)
    planned = _plan_weights(checkpoint, name)
    if planned is not None:
        return planned
    if name.endswith(".txt") and has_keyed_lines(checkpoint.folder / name, settled.ids):
        return SideFile(name, "by token")
    if any(matches(pattern) for pattern in _CARRIED):
        return SideFile(name, "carry")
    if name.endswith(".json"):
        document = _read_json(checkpoint.folder / name)
        if is_keyed(document, settled.ids) or gives_ids(document, settled.ids):
            return SideFile(name, "by token")
        if not _maps_tokens(document):
            return SideFile(name, "renumber" if isinstance(document, dict) else "carry")
    raise CheckpointError(
        f"{shown(name)} in {checkpoint.folder} is not a file that langslice knows; nothing was written",
        hint=f"pass --carry {quote(file_name)} if it does not depend on the vocabulary, or --leave-out {quote(file_name)}",
    )


def _plan_in_module(checkpoint: Checkpoint, name: str, folders: ModuleFolders) -> SideFile | None:
    """A file in the folder of a module; None for one that is planned like any other."""
    if any(name.startswith(f"{folder}/") for folder in folders.following):
        return _plan_module_file(checkpoint, name)
    folder, _, file_name = name.rpartition("/")
    if folder not in folders.tables:
        return None
    files = open_tokenizer(checkpoint.folder / folder).files
    if file_name not in files:
        return None
    first = file_name == files[0]
    return SideFile(name, "tokenizer") if first else SideFile(name, "with tokenizer")


def _plan_weights(checkpoint: Checkpoint, name: str) -> SideFile | None:
    """Weights other than the main ones, and indexes of such; None for other files."""
    folder, _, file_name = name.rpartition("/")
    beside = (checkpoint.folder / folder) == checkpoint.model_folder
    if beside and fnmatch(file_name, "adapter_*"):
        return SideFile(name, "leave out", _ADAPTER)
    if any(fnmatch(file_name, pattern) for pattern in _INDEXES):
        own = not beside and any(is_weights(path.name) for path in (checkpoint.folder / folder).iterdir())
        return SideFile(name, "carry") if own else SideFile(name, "leave out", _OLD_WEIGHTS)
    if not is_weights(name):
        return None
    reason = why_left_out(checkpoint, name)
    return SideFile(name, "leave out", reason) if reason else SideFile(name, "weights")


def _maps_tokens(document: Any) -> bool:
    """Whether a JSON document looks like a vocabulary that no writer knows: names to numbers, or tokens in a list."""
    if isinstance(document, dict):
        return len(document) >= LEAST_ENTRIES and all(type(value) is int for value in document.values())
    return isinstance(document, list) and len(document) >= LEAST_ENTRIES and all(type(v) is str for v in document)


def _plan_module_file(checkpoint: Checkpoint, name: str) -> SideFile | None:
    """A file of a module that follows the transformer; None for one that is planned like any other."""
    if name.endswith(".json"):
        return SideFile(name, "renumber", sizes=_MODULE_SIZES)
    if not name.endswith("/pytorch_model.bin"):
        return None if is_weights(name) else SideFile(name, "carry")
    if (checkpoint.folder / name).with_name("model.safetensors").is_file():
        return SideFile(name, "leave out", "the same weights as model.safetensors next to it")
    return SideFile(name, "convert")


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not valid JSON: {error}") from error


def id_fields(checkpoint: Checkpoint, files: Sequence[SideFile], *, rows: int, ignore: frozenset[str]) -> list[IdField]:
    """Every configuration field of the source that names token ids."""
    found: list[IdField] = []
    for file in files:
        if file.action == "renumber":
            document = _read_json(checkpoint.folder / file.name)
            found += find_id_fields(document, file=file.name, rows=rows, ignore=ignore)
    return found


def renumbered(
    checkpoint: Checkpoint,
    file: SideFile,
    ids: IdMap,
    *,
    implied: Mapping[str, Mapping[str, Any]],
    ignore: frozenset[str],
    restructure: Restructure,
) -> tuple[dict[str, Any], bool]:
    """A JSON file of the source in the new numbering, and whether anything in it changed."""
    document = _read_json(checkpoint.folder / file.name)
    completed = _with_implied(document, implied.get(file.name, {}))
    result = restructure(file.name, renumber(completed, ids, file=file.name, ignore=ignore))
    result |= {name: ids.size for name in file.sizes if document.get(name) == ids.old_size}
    return result, result != document


def as_it_is(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """What a slice that keeps all layers, heads and neurons makes of a configuration file."""
    return document


def write_side_files(
    checkpoint: Checkpoint,
    files: Sequence[SideFile],
    ids: IdMap,
    out: Path,
    *,
    implied: Mapping[str, Mapping[str, Any]],
    ignore: frozenset[str],
    restructure: Restructure,
) -> None:
    """Write every carried and renumbered file below `out`; renumbered JSON keeps its keys and their order.

    restructure  gives configuration files, by name, the fields of another number of layers, heads or neurons
    """
    for file in files:
        source, target = checkpoint.folder / file.name, out / file.name
        if file.action not in ("carry", "convert", "renumber"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.action == "convert":
            _write_safetensors(source, target.with_name("model.safetensors"))
            continue
        changed = False
        if file.action == "renumber":
            document, changed = renumbered(
                checkpoint, file, ids, implied=implied, ignore=ignore, restructure=restructure
            )
        if changed:
            target.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(source, target)


def _write_safetensors(source: Path, target: Path) -> None:
    """Write a small pickled state dict as safetensors, without running any code in it."""
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(source, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{source} holds something else than tensors, or is damaged: {error}",
            hint="convert it to model.safetensors yourself if you trust it",
        ) from error
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target, metadata={"format": "pt"})


def _with_implied(document: dict[str, Any], implied: Mapping[str, Any]) -> dict[str, Any]:
    """Add ids that the class would supply, by dotted path, where the document does not give them."""
    completed: dict[str, Any] = json.loads(json.dumps(document))
    for dotted, value in implied.items():
        *path, key = dotted.split(".")
        holder = completed
        for step in path:
            holder = holder.setdefault(step, {})
        holder.setdefault(key, value)
    return completed
