"""Demonstrations: short texts that show a model at work, such as four consecutive translations, for calibration.

Reading order: demonstration.py (one of them, and files of them), sources.py (parallel text, text, code), layout.py
(layout, order, number), tokens.py (as token ids of one model). Nothing heavy is imported before tokens.py works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.demonstrations.demonstration import Demonstration, read_demonstrations, write_demonstrations
    from langslice.demonstrations.layout import (
        KIM2024,
        Layout,
        code_demonstrations,
        parallel_demonstrations,
        text_demonstrations,
    )
    from langslice.demonstrations.main import make_demonstrations
    from langslice.demonstrations.options import DemonstrationOptions
    from langslice.demonstrations.sources import read_code, read_pairs, read_sentences

__all__ = [
    "KIM2024",
    "Demonstration",
    "DemonstrationOptions",
    "Layout",
    "code_demonstrations",
    "make_demonstrations",
    "parallel_demonstrations",
    "read_code",
    "read_demonstrations",
    "read_pairs",
    "read_sentences",
    "text_demonstrations",
    "write_demonstrations",
]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.demonstrations.demonstration": (
            "Demonstration",
            "read_demonstrations",
            "write_demonstrations",
        ),
        "langslice.demonstrations.layout": (
            "KIM2024",
            "Layout",
            "code_demonstrations",
            "parallel_demonstrations",
            "text_demonstrations",
        ),
        "langslice.demonstrations.main": ("make_demonstrations",),
        "langslice.demonstrations.options": ("DemonstrationOptions",),
        "langslice.demonstrations.sources": (
            "read_code",
            "read_pairs",
            "read_sentences",
        ),
    },
)
