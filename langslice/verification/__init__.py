"""Compare a slice with its source: tensors, ids, tokenization, outputs, and the record in slice.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.verification.check import Check
    from langslice.verification.main import Verification
    from langslice.verification.tokenization import TextComparison

__all__ = ["Check", "TextComparison", "Verification"]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.verification.check": ("Check",),
        "langslice.verification.main": ("Verification",),
        "langslice.verification.tokenization": ("TextComparison",),
    },
)
