"""GGUF files as the source: read, cut, written and compared without leaving the format."""

from __future__ import annotations

__all__: list[str] = []
