"""Demonstrations: short texts that show a model at work, such as four translations in a row, for calibration.

Reading order: demonstration.py (one of them, and files of them), sources.py (parallel text, text, code), layout.py
(layout, order, number), tokens.py (as token ids of one model). Nothing heavy is imported before tokens.py works.
"""

from langslice.demonstrations.demonstration import Demonstration, read_demonstrations, write_demonstrations
from langslice.demonstrations.layout import (
    KIM2024,
    Layout,
    code_demonstrations,
    parallel_demonstrations,
    text_demonstrations,
)
from langslice.demonstrations.sources import read_code, read_pairs, read_sentences

__all__ = [
    "KIM2024",
    "Demonstration",
    "Layout",
    "code_demonstrations",
    "parallel_demonstrations",
    "read_code",
    "read_demonstrations",
    "read_pairs",
    "read_sentences",
    "text_demonstrations",
    "write_demonstrations",
]
