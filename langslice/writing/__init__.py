"""Stream tensors from a source checkpoint into a new one."""

__all__: list[str] = []
