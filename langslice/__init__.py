"""langslice: slice a pretrained multilingual model to the languages that are needed, and prove it."""

__version__ = "0.1.0"
