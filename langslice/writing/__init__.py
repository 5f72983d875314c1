"""Stream tensors from a source checkpoint into a new one."""
