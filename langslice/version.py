"""The version of langslice."""

__version__ = "0.1.0"
