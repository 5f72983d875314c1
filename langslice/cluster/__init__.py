"""Work on a Ray cluster."""

__all__: list[str] = []
