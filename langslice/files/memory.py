"""Give memory back to the system: what was freed in many small parts otherwise counts in the peak of what runs next."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Return the pages that nothing uses any more, where the C library can (glibc's malloc_trim); elsewhere nothing.

    Reading a vocabulary leaves some fifteen megabytes of them, loading a tokenizer for a check some thirty.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
