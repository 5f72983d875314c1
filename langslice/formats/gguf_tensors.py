"""Tensors of a checkpoint as a GGUF file holds them: names, rows in another order, types; written window by window, read back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from langslice.errors import ExportError
from langslice.formats.families import GgufFamily
from langslice.formats.gguf_metadata import first_position, rope_factors
from langslice.model.checkpoint import Checkpoint

# Types that the `gguf` package writes, and what llama.cpp calls a file of such tensors.
WRITTEN = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_PLAIN = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_ALWAYS_F32 = re.compile(r"(position_embd|token_types|rope_freqs)\.weight|.*norm\.weight")
_WINDOW = 1 << 22  # numbers at once
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file.

    name    in the file
    source  in the checkpoint
    shape   as in the file, the last dimension contiguous
    kind    type in the file, a `gguf.GGMLQuantizationType`
    heads   its rows are interleaved by so many heads; 0 for rows in their order
    shift   added to each value
    start   first row that the file has
    """

    name: str
    source: str
    shape: tuple[int, ...]
    kind: Any
    heads: int = 0
    shift: float = 0.0
    start: int = 0


def plain_precision(checkpoint: Checkpoint) -> str:
    """The type in which every weight can be written as it is."""
    found = {_PLAIN.get(tensor.dtype) for tensor in checkpoint.tensors.values() if len(tensor.shape) > 1}
    return found.pop() or "f32" if len(found) == 1 else "f32"


def lay_out(
    checkpoint: Checkpoint, family: GgufFamily, config: Mapping[str, Any], precision: str
) -> tuple[list[GgufTensor], list[str]]:
    """Every tensor of the file, and what a user should know.

    Raises  ExportError for a tensor that llama.cpp has no name for, or of a type that is not plain
    """
    from gguf import GGMLQuantizationType, get_tensor_name_map
    from gguf.constants import MODEL_ARCH_NAMES

    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = get_tensor_name_map(architecture, int(config["num_hidden_layers"]))
    wished = GGMLQuantizationType[precision.upper()]
    found: list[GgufTensor] = []
    unfit = 0
    for source, tensor in checkpoint.tensors.items():
        short = _short_name(source)
        if short.startswith(family.dropped) or (short == "lm_head.weight" and config.get("tie_word_embeddings")):
            continue
        name = names.get_name(short, try_suffixes=(".weight", ".bias"))
        if name is None or tensor.dtype not in _PLAIN:
            reason = "llama.cpp has no place for it" if name is None else f"its type is {tensor.dtype}"
            raise ExportError(f"{source} cannot be written: {reason}")
        start = first_position(config, family) if name == "position_embd.weight" else 0
        shape = (tensor.shape[0] - start, *tensor.shape[1:])
        kind = GGMLQuantizationType.F32 if len(shape) < 2 or _ALWAYS_F32.fullmatch(name) else wished
        if kind is GGMLQuantizationType.Q8_0 and shape[-1] % 32:
            kind, unfit = GGMLQuantizationType.F16, unfit + 1
        shift = 1.0 if family.shifted and name.endswith("norm.weight") else 0.0
        found.append(GgufTensor(name, source, shape, kind, _interleaved(name, family, config), shift, start))
    told = [f"{unfit} tensors are written as f16: q8_0 takes rows of a multiple of 32 numbers"] if unfit else []
    return found, told


def write_tensors(
    writer: Any, tensors: Sequence[GgufTensor], checkpoint: Checkpoint, config: Mapping[str, Any]
) -> None:
    """Announce every tensor to a `gguf.GGUFWriter`, write what it holds so far, and then the tensors one by one."""
    factors = rope_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), _size_bytes(tensor), tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for tensor in tensors:
        writer.write_tensor_data(_Stream(tensor, checkpoint.tensors[tensor.source].path))


def read_back(path: Path, tensors: Sequence[GgufTensor]) -> Iterator[tuple[GgufTensor, np.ndarray]]:
    """What a GGUF file holds for each tensor of the checkpoint, as the checkpoint would have it: float32, (rows, ...).

    Rows before `start` are not there.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    by_name = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for tensor in tensors:
        stored = by_name[tensor.name]
        values = dequantize(stored.data, stored.tensor_type).astype(np.float32).reshape(tensor.shape)
        if tensor.heads:
            values = _apart(values, tensor.heads)
        yield tensor, values - np.float32(tensor.shift)


def _short_name(source: str) -> str:
    """A tensor's name without what surrounds an encoder, and as transformers writes it today."""
    short = source.removeprefix("bert.").removeprefix("roberta.")
    for old, new in _OLD_NAMES.items():
        short = short.removesuffix(old) + new if short.endswith(old) else short
    return short


def _interleaved(name: str, family: GgufFamily, config: Mapping[str, Any]) -> int:
    if not family.permuted or not re.search(r"attn_[qk]\.", name):
        return 0
    heads = int(config["num_attention_heads"])
    return heads if "attn_q." in name else int(config.get("num_key_value_heads") or heads)


def _size_bytes(tensor: GgufTensor) -> int:
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[tensor.kind]
    return int(np.prod(tensor.shape, dtype=np.int64)) // block * size


class _Stream:
    """A tensor that is read, changed and written window by window; to a `gguf.GGUFWriter` it looks like an array."""

    def __init__(self, tensor: GgufTensor, path: Path) -> None:
        self.tensor = tensor
        self.path = path
        self.nbytes = _size_bytes(tensor)

    def tofile(self, file: IO[bytes]) -> None:
        """Write all windows."""
        from gguf.quants import quantize

        for window in _windows(self.tensor, self.path):
            file.write(quantize(window, self.tensor.kind).tobytes())


def _windows(tensor: GgufTensor, path: Path) -> Iterator[np.ndarray]:
    """Rows of a tensor as the file has them, in float32."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        rows = opened.get_slice(tensor.source)
        width = int(np.prod(tensor.shape[1:], dtype=np.int64))
        step = tensor.shape[0] if tensor.heads else max(1, _WINDOW // max(width, 1))
        for at in range(0, tensor.shape[0], step):
            window = rows[tensor.start + at : tensor.start + min(at + step, tensor.shape[0])]
            values = window.to(torch.float32).numpy()
            yield (_together(values, tensor.heads) if tensor.heads else values) + np.float32(tensor.shift)


def _together(rows: np.ndarray, heads: int) -> np.ndarray:
    """The two halves of each head's rows in turns: llama.cpp rotates neighbours, transformers halves."""
    size = len(rows) // heads
    return rows.reshape(heads, 2, size // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """What `_together` did, undone."""
    size = len(rows) // heads
    return rows.reshape(heads, size // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
