"""Write trained weights into a copy of the checkpoint: same files, same tensor names, same stored types.

The copy's bytes are overwritten tensor by tensor, so that what did not train stays byte for byte. Names on disk are those that
`save_pretrained` gives: where a class stores its weights under other names than it loads, transformers converts them back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.errors import HealError
from langslice.files.safetensors_header import DTYPE_BITS, TensorEntry
from langslice.healing.student import is_float
from langslice.model.checkpoint import Checkpoint
from langslice.planning.side_files import stale_reason
from langslice.sparsity.weight_bytes import stored_bytes, write_tensor, writing
from langslice.verification.file_names import FILE_NAME
from langslice.writing.shards import TensorEdit, write_shards

RECORD: Final = "healing.json"
"""Holds what slice.json would say of the healing, in a folder that has no slice.json."""


def copy_model(checkpoint: Checkpoint, staging: Path) -> None:
    """Copy a model folder: weights as safetensors, every other file as it is but forms of the old weights."""
    weights = {(shard.path.parent / shard.name).name for shard in checkpoint.shards}
    prefix = checkpoint.model_folder.relative_to(checkpoint.folder)
    for path in sorted(checkpoint.folder.rglob("*")):
        name = path.relative_to(checkpoint.folder)
        if not path.is_file() or (name.parent == prefix and name.name in weights):
            continue
        if stale_reason(name.as_posix()) and not _belongs(name, prefix) and name.name != RECORD:
            continue
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, staging / name)
    (staging / prefix).mkdir(parents=True, exist_ok=True)
    write_shards(checkpoint, {name: TensorEdit("keep") for name in checkpoint.tensors}, staging / prefix)


def _belongs(name: Path, prefix: Path) -> bool:
    """Whether weights in a folder of their own are those of a module after the transformer (sentence-transformers)."""
    return name.parent != prefix and fnmatch(name.as_posix(), "[0-9]*_*/*")


def write_weights(
    model: Any,
    checkpoint: Checkpoint,
    staged: Checkpoint,
    scratch: Path,
    zeros: Collection[str],
    state: Any = None,
    *,
    body: bool = False,
) -> None:
    """Overwrite the staged weights by those of a trained model.

    staged   the copy
    scratch  folder for the names that transformers saves under
    zeros    tensors whose number of zeros must not change: what rounds to zero there becomes the smallest number instead
    state    the model's weights, where it does not hold them itself
    body     the model is the body of what the checkpoint holds, whose head is left as it is
    Raises   HealError for a tensor that has no place on the other side
    """
    with _saved(model, scratch, state) as (names, read):
        own = dict(model.state_dict() if state is None else state)
        prefix = f"{model.base_model_prefix}." if body else ""
        source_of = {}
        for entry in staged.tensors.values():
            for name in (entry.name, entry.name.removeprefix(prefix)):
                if is_float(entry.dtype) and (name in names or name in own):
                    source_of[entry.name] = name
        _check_places(model, checkpoint, names, source_of, body=body)
        entries = [staged.tensors[name] for name in source_of]
        with writing(entries) as descriptors:
            for entry in entries:
                name = source_of[entry.name]
                tensor = (read(name) if name in names else own[name]).detach().float().cpu()
                if tuple(tensor.shape) != entry.shape:
                    raise HealError(
                        f"{entry.name} has shape {tuple(tensor.shape)} after training, {entry.shape} before"
                    )
                data = stored_bytes(tensor.reshape(-1), entry)
                if entry.name in zeros:
                    data = _without_new_zeros(data, tensor, entry)
                write_tensor(descriptors[entry.path], entry, data)


def _check_places(
    model: Any, checkpoint: Checkpoint, names: Collection[str], source_of: Mapping[str, str], *, body: bool
) -> None:
    """Every tensor of the checkpoint that the class reads has a trained one, and every trained one a place."""
    unused = set(checkpoint.tensors) if body else _unused(checkpoint)
    for name, entry in checkpoint.tensors.items():
        if is_float(entry.dtype) and name not in source_of and name not in unused:
            raise HealError(
                f"{name} is in {checkpoint.folder}, and {type(model).__name__} does not save it",
                "its class stores weights under other names; heal a folder that its own save_pretrained wrote",
            )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    lost = sorted((trained & set(names)) - set(source_of.values()))
    if lost:
        raise HealError(
            f"{lost[0]} was trained, and {checkpoint.folder} has no place for it",
            "heal a folder that the model's own save_pretrained wrote",
        )


@contextmanager
def _saved(model: Any, scratch: Path, state: Any) -> Iterator[tuple[Collection[str], Any]]:
    """Names under which the model is saved, and a function that reads one."""
    from safetensors import safe_open

    from langslice.model.transformers_classes import quiet_transformers

    scratch.mkdir()
    try:
        with quiet_transformers():
            model.save_pretrained(scratch, state_dict=state)
        files: list[Any] = [safe_open(path, "pt") for path in sorted(scratch.glob("*.safetensors"))]
        where = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a mapping
        yield where.keys(), lambda name: where[name].get_tensor(name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unused(checkpoint: Checkpoint) -> set[str]:
    """Tensors of the checkpoint that the class never reads, such as a buffer of an older version."""
    from langslice.model.transformers_classes import loading_report

    found = loading_report(checkpoint)
    return set() if found is None else found["unexpected"]


def _without_new_zeros(data: memoryview, tensor: Any, entry: TensorEntry) -> memoryview:
    """Bytes in which only what is zero in float32 is zero."""
    kind = np.dtype(f"u{DTYPE_BITS[entry.dtype] // 8}")
    values = np.frombuffer(data, dtype=kind).copy()
    vanished = (np.left_shift(values, np.array(1, dtype=kind)) == 0) & (tensor.reshape(-1).numpy() != 0)
    values[vanished] |= np.array(1, dtype=kind)  # the smallest number, with the sign that is there
    return values.view(np.uint8).data.cast("B")


def add_entry(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Put an entry into slice.json, on a line of its own at the top, or into healing.json where there is no slice.json.

    An earlier entry of the same name is kept inside the new one as `earlier`.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        earlier = json.loads((folder / RECORD).read_text(encoding="utf-8")) if (folder / RECORD).is_file() else {}
        document = {name: {**entry, **({"earlier": earlier[name]} if name in earlier else {})}}
        (folder / RECORD).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    document = json.loads(text)
    mark = f'{{\n "{name}": '
    if name in document:
        entry = {**entry, "earlier": document[name]}
        if text.startswith(mark):
            text = "{\n" + text[len(mark) :].partition("\n")[2]
    line = json.dumps(entry, ensure_ascii=False)
    made = mark + line + "," + text.removeprefix("{")
    if json.loads(made) != {**document, name: entry}:  # written by other hands: its layout is not kept
        made = json.dumps({name: entry, **{key: value for key, value in document.items() if key != name}}, indent=1)
    path.write_text(made, encoding="utf-8")
