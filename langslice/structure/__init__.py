"""Layers, attention heads and feed-forward neurons: what a model has, what is kept, and how the files change."""

__all__: list[str] = []
