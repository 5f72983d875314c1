"""One question about a slice, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EXAMPLES = 10


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    name      what was compared
    passed    None where the check could not be made; `detail` says why
    examples  the first ten differences
    """

    name: str
    passed: bool | None
    detail: str
    examples: tuple[str, ...] = ()
