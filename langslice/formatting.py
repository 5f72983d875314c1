"""Sizes, counts and runs of numbers as text, and the console that they are printed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def bytes_text(size_bytes: float) -> str:
    """1234567 -> "1.2 MB" (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} TB"


def count_text(number: float) -> str:
    """1234567 -> "1.23 M"."""
    if abs(number) < 1000:
        return f"{number:.0f}"
    for unit in ("k", "M"):
        number /= 1000
        if abs(number) < 1000:
            return f"{number:.2f} {unit}"
    return f"{number / 1000:.2f} B"


def number_runs(numbers: Sequence[int]) -> list[str]:
    """(0, 1, 2, 5) -> ["0-2", "5"]."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]


def stdout_console() -> Console:
    """A console on stdout; 120 columns wide where stdout is a pipe or a file, since 80 would break tables that are searched."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)
