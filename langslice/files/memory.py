"""How much memory is free, and giving it back: what was freed in small parts otherwise counts in the peak of what runs next."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

# Bytes: what the process has grown by since memory was last returned, below which looking for free parts is not worth its time.
_LITTLE = 1 << 23
_resident_before = 0


def return_freed_memory() -> None:
    """Return the pages that nothing uses any more, where the C library can (glibc's malloc_trim); elsewhere nothing.

    Reading a vocabulary leaves some fifteen megabytes of them, loading a tokenizer for a check some thirty.
    """
    global _resident_before
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None and _resident() - _resident_before > _LITTLE:
            trim(0)
        _resident_before = _resident()


def available_bytes() -> int | None:
    """Bytes of memory that new processes can have without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
