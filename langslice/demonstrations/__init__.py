"""Demonstrations: short texts that show a model at work, such as four consecutive translations, for calibration.

Reading order: demonstration.py (one of them, and files of them), sources.py (parallel text, text, code), layout.py
(layout, order, number), tokens.py (as token ids of one model). Nothing heavy is imported before tokens.py works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.demonstrations.demonstration import Demonstration, read_demonstrations, write_demonstrations
    from langslice.demonstrations.layout import KIM2024 as KIM2024
    from langslice.demonstrations.layout import (
        Layout,
        code_demonstrations,
        parallel_demonstrations,
        text_demonstrations,
    )
    from langslice.demonstrations.main import make_demonstrations as make_demonstrations
    from langslice.demonstrations.options import DemonstrationOptions as DemonstrationOptions
    from langslice.demonstrations.sources import read_code as read_code
    from langslice.demonstrations.sources import read_pairs
    from langslice.demonstrations.sources import read_sentences as read_sentences

__all__ = [
    "Demonstration",
    "Layout",
    "code_demonstrations",
    "parallel_demonstrations",
    "read_demonstrations",
    "read_pairs",
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
