"""The version of langslice."""

__version__ = "0.2.0"
