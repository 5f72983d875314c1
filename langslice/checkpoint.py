"""What is in a checkpoint: config, tensors with their byte ranges, and the files beside them.

Nothing is loaded: safetensors headers are parsed and checked, and `pytorch_model*.bin` archives are opened through
`torch.load(mmap=True, weights_only=True)` only to learn where each tensor's bytes lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a checkpoint and the byte range that holds it.

    dtype   safetensors name ("F32", "BF16", "I8", "F8_E4M3", ...)
    shape   as stored, row-major
    path    absolute, symlinks resolved
    start   offset in that file of its first byte
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size_bytes: int


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

    folder        root of the model as the user named it (sentence-transformers: holds modules.json)
    model_folder  folder with config.json and the weights; differs from `folder` only for sentence-transformers layouts
                  that keep the transformer in a subfolder such as 0_Transformer
    model_id      what the user typed
    revision      resolved commit of a hub model, else None
    config        config.json as written
    aliases       pickle archives only: name -> name of the tensor whose storage, shape and offset it shares
    """

    folder: Path
    model_folder: Path
    model_id: str
    revision: str | None
    config: dict[str, Any]
    shards: tuple[Shard, ...]
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, TensorEntry]:
        """Every tensor by name, in file order."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}


def open_checkpoint(
    model: str | Path, *, revision: str | None = None, token: str | None = None, cache_dir: Path | None = None
) -> Checkpoint:
    """Read a local folder or a hub id."""
    raise NotImplementedError
