"""Choosing what to keep; nothing here writes."""
