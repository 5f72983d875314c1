"""Bytes on disk: headers, ranges, copies, hashes, and outputs that appear complete or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.files.safetensors_header import read_header

__all__ = ["read_header"]
__getattr__ = lazy_names(__name__, {"langslice.files.safetensors_header": ("read_header",)})
