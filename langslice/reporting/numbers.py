"""Numbers as people read them."""

from __future__ import annotations

from math import isfinite

from langslice.formatting import bytes_text, count_text

__all__ = ["bytes_text", "change_text", "count_text", "figures", "percent"]


def percent(share: float, digits: int = 1) -> str:
    """0.6031 -> "60.3%"; a share just below one does not round up to all."""
    if not isfinite(share):
        return "–"
    text = f"{share * 100:.{digits}f}%"
    if share < 1 and text == f"{100:.{digits}f}%":
        return (
            f"{share * 100:.{digits + 2}f}%" if f"{share * 100:.{digits + 2}f}" != f"{100:.{digits + 2}f}" else "<100%"
        )
    return text


def change_text(change: float) -> str:
    """-0.3634 -> "−36.3%", 0 -> "same"."""
    if change == 0:
        return "same"
    return f"{'−' if change < 0 else '+'}{abs(change) * 100:.1f}%"


def figures(value: float, count: int = 4) -> str:
    """A number in so many significant figures, without an exponent where that is readable: 0.03412, 12.5, 1,234."""
    if not isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (count - 1) and abs(value) < 1e9:
        text = f"{value:,.0f}"
    elif 1e-4 <= abs(value) < 1e9:
        text = f"{value:#.{count}g}".rstrip(".")
    else:
        text = f"{value:.{count - 1}e}"
    return text.replace("-", "−", 1) if text.startswith("-") else text
