"""What a checkpoint is: its files, its family, its layers, its tokenizer, and what transformers makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.model.anatomy import read_anatomy
    from langslice.model.axes import Family, Rule
    from langslice.model.checkpoint import Checkpoint, TensorEntry, open_checkpoint

__all__ = ["Checkpoint", "Family", "Rule", "TensorEntry", "open_checkpoint", "read_anatomy"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.model.anatomy": ("read_anatomy",),
        "langslice.model.axes": (
            "Family",
            "Rule",
        ),
        "langslice.model.checkpoint": (
            "Checkpoint",
            "TensorEntry",
            "open_checkpoint",
        ),
    },
)
