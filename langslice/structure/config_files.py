"""Configuration files of a slice with fewer layers, heads or neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.structure.hidden_size import hidden_size
from langslice.structure.kept import Kept

# Fields in which a module of sentence-transformers says of how many dimensions its states are.
_WIDTHS = ("embedding_dimension", "word_embedding_dimension")


def restructured(
    checkpoint: Checkpoint, anatomy: Anatomy | None, kept: Kept | None, name: str, document: dict[str, Any]
) -> dict[str, Any]:
    """The document with the fields that the structure changes, in the order in which it has them.

    anatomy  of the checkpoint, where something of it is sliced
    kept     what stays of it; None for all
    name     path of the file below the model's root
    """
    if kept is None or anatomy is None:
        return document
    folder = checkpoint.model_folder.relative_to(checkpoint.folder)
    if name == (folder / "config.json").as_posix():
        return _config(checkpoint, anatomy, kept, document)
    if name == (folder / "generation_config.json").as_posix() and document.get("alignment_heads"):
        return {**document, "alignment_heads": _alignment_heads(kept, document)}
    if kept.hidden and name.endswith("/config.json"):
        before = hidden_size(anatomy)
        return {
            key: len(kept.hidden) if key in _WIDTHS and value == before else value for key, value in document.items()
        }
    return document


def _config(checkpoint: Checkpoint, anatomy: Anatomy, kept: Kept, document: dict[str, Any]) -> dict[str, Any]:
    result = dict(document)
    for dotted, value in kept.config.items():
        *path, key = dotted.split(".")
        holder = result
        for step in path:
            holder[step] = dict(holder[step])
            holder = holder[step]
        holder[key] = value
    if kept.style == "sliced":
        from langslice.structure.sliced_files import sliced_fields

        result.update(sliced_fields(anatomy, kept, checkpoint.shapes, document))
    return result


def _alignment_heads(kept: Kept, document: Mapping[str, Any]) -> list[list[int]]:
    """Whisper's pairs of decoder layer and cross-attention head that follow the sound, without those that are gone."""
    pairs = []
    for layer, head in document["alignment_heads"]:
        if kept.keeps_layer("decoder", layer):
            stay = kept.heads.get("decoder.cross", {}).get(layer, range(head + 1))
            if head in stay:
                pairs.append([kept.new_layer("decoder", layer), head if kept.style == "masked" else stay.index(head)])
    return pairs
