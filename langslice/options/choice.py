"""What was asked, as one mapping: read from texts with commas or from several values, and written into a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langslice.options.values import is_json

Choice = Mapping[str, Any]
"""What was asked, name -> value, without what was not; of the options of langslice.planning.options."""
# Entries that a plan does not record: secrets, and what does not change the result.
_UNRECORDED = frozenset({"token", "cache_dir", "processes", "revision"})


def listed(value: Any) -> tuple[str, ...]:
    """One value or several, as a tuple of strings; never split, so that paths may hold commas."""
    if value is None:
        return ()
    if isinstance(value, str | Path | int):
        return (str(value),)
    return tuple(str(item) for item in value)


def codes(value: Any) -> tuple[str, ...]:
    """Codes, in one string with commas or in several: "ko, en" -> ("ko", "en")."""
    return tuple(part.strip() for item in listed(value) for part in item.split(",") if part.strip())


def asks(choice: Choice, names: Iterable[str]) -> bool:
    """Whether a choice gives any of these entries a value."""
    # The layer 0 is an answer; no value, an empty one and a switch that is off are none.
    given = [choice.get(name) for name in names]
    return any(value is not None and value is not False and value not in ((), []) for value in given)


def request_json(choice: Choice) -> dict[str, Any]:
    """The choice as it is written into the plan: without secrets, and without what was not asked for."""
    plain: dict[str, Any] = {}
    for name, value in choice.items():
        if name in _UNRECORDED or value is None or value is False or (isinstance(value, tuple) and not value):
            continue
        if isinstance(value, Mapping):
            plain[name] = [f"{key}={len(lines)} lines" for key, lines in value.items()]
        elif is_json(value, "array"):
            plain[name] = [str(item) for item in value]
        else:
            plain[name] = value if isinstance(value, int | float) else str(value)
    return plain
