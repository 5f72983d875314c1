"""Other programs' formats: a slice as GGUF for llama.cpp and Ollama or as ONNX, compared there with the slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.formats.main import Exported
    from langslice.formats.options import ExportOptions

__all__ = ["ExportOptions", "Exported"]
__getattr__ = lazy_names(
    __name__, {"langslice.formats.main": ("Exported",), "langslice.formats.options": ("ExportOptions",)}
)
