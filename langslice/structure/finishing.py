"""What a structural slice needs after its shards are written: zeros where it masks, code where its layers differ."""

from __future__ import annotations

import json
from pathlib import Path

from langslice.checkpoint import Checkpoint, open_checkpoint
from langslice.structure.kept import Kept


def finish_structure(checkpoint: Checkpoint, kept: Kept, staging: Path) -> None:
    """Complete the staging folder of a slice whose shards and configuration stand there.

    The shards must be files of their own: zeros would be written through a link into the source.
    """
    if kept.style == "masked":
        from langslice.structure.anatomy import read_anatomy
        from langslice.structure.edits import zeroed_indices
        from langslice.structure.masking import write_zeros

        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        write_zeros(open_checkpoint(staging).tensors, zeroed_indices(read_anatomy(checkpoint), kept, shapes))
    elif kept.style == "sliced":
        from langslice.structure.sliced_files import write_module

        folder = staging / checkpoint.model_folder.relative_to(checkpoint.folder)
        write_module(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
