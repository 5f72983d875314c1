"""Weights to zero: which ones matter least on calibration data, and zeroing them in place, one block at a time.

Reading order: request.py (what is asked), blocks.py and skeleton.py (the unmodified model without its weights: empty_model.py,
parameter_locations.py, experts.py), block_pass.py (prompts pass through it block by block), input_statistics.py (what reaches each
linear layer), scores.py and masks.py (which weights go), sparsegpt.py (the peer that also updates the rest), journal.py
(surviving a kill), weight_bytes.py (the bytes on disk), main.py (the main flow), pruned_copy.py (the same into a new folder).

Only the names below are loaded here; they need neither torch nor transformers until they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.sparsity.main import sparsify
    from langslice.sparsity.pruned_copy import prune_copy
    from langslice.sparsity.report import SparsityReport, TensorSparsity
    from langslice.sparsity.request import SparsityRequest
    from langslice.sparsity.structured import StructuredScores, structured_scores

__all__ = [
    "SparsityReport",
    "SparsityRequest",
    "StructuredScores",
    "TensorSparsity",
    "prune_copy",
    "sparsify",
    "structured_scores",
]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.sparsity.main": ("sparsify",),
        "langslice.sparsity.pruned_copy": ("prune_copy",),
        "langslice.sparsity.report": (
            "SparsityReport",
            "TensorSparsity",
        ),
        "langslice.sparsity.request": ("SparsityRequest",),
        "langslice.sparsity.structured": (
            "StructuredScores",
            "structured_scores",
        ),
    },
)
