"""What a structural slice needs after its shards are written: zeros where it masks, code where its layers differ."""

from __future__ import annotations

import json
from pathlib import Path

from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.structure.kept import Kept


def finish_structure(checkpoint: Checkpoint, anatomy: Anatomy, kept: Kept, staging: Path) -> None:
    """Complete the staging folder of a slice whose shards and configuration are there.

    The shards must be files of their own: zeros would be written through a link into the source.
    """
    if kept.rewrites:
        from langslice.structure.edits import layer_edits, zeros
        from langslice.structure.hidden_size import scalings_of
        from langslice.structure.scaled_values import write_scaled
        from langslice.structure.written_zeros import write_zeros

        shapes = checkpoint.shapes
        edits = layer_edits(anatomy, kept, shapes)
        names = {name: edits[name].name or name if name in edits else name for name in shapes}
        gone = {name for name, edit in edits.items() if edit.action == "drop"}
        written = open_checkpoint(staging).tensors
        changed = {names[name]: one for name, one in scalings_of(checkpoint, anatomy, kept).items() if name not in gone}
        write_scaled(written, {name: one for name, one in changed.items() if name in written})
        write_zeros(written, {names[name]: by_dim for name, by_dim in zeros(anatomy, kept, shapes).items()})
    finish_files(checkpoint, kept, staging)


def finish_files(checkpoint: Checkpoint, kept: Kept, staging: Path) -> None:
    """Write the code of a slice whose layers differ, next to the configuration that is there."""
    if kept.style == "sliced":
        from langslice.structure.sliced_files import write_module

        folder = staging / checkpoint.model_folder.relative_to(checkpoint.folder)
        write_module(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
