"""Choosing what to keep; nothing here writes."""

__all__: list[str] = []
