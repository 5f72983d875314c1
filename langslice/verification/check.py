"""One question about a slice, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EXAMPLES = 10
LEFT_FOR_LATER = "not made by --verify-level quick; `langslice verify` makes it"
"""Detail of a check that a quick verification does not make."""


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    name      what was compared
    passed    None where the check could not be made; `detail` says why
    examples  the first ten differences
    warning   what is no fault of the slice, and a user must know before using it; "" for nothing
    """

    name: str
    passed: bool | None
    detail: str
    examples: tuple[str, ...] = ()
    warning: str = ""
