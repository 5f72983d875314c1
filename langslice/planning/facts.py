"""The form of a plan's `facts`, which reports show and a person may have edited; what they say is vocabulary/facts.py's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def checked_facts(given: Any) -> dict[str, Any]:
    """The facts of a plan, their form checked.

    Raises  TypeError, ValueError, KeyError, IndexError, AttributeError where they are of another form
    """
    if not isinstance(given, dict):
        raise TypeError(f"`facts` is a {type(given).__name__}")
    facts = dict(given)
    if "scripts" in facts:
        facts["scripts"] = {str(name): [int(row[0]), int(row[1])] for name, row in facts["scripts"].items()}
    if "evidence" in facts:
        facts["evidence"] = [_checked_criterion(entry) for entry in facts["evidence"]]
    if "sizes" in facts:
        facts["sizes"] = _checked_sizes(facts["sizes"])
    return facts


def _checked_criterion(entry: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {"reason": str(entry["reason"])}
    checked |= {name: int(entry[name]) for name in ("tokens", "taken", "kept")}
    if "curve" in entry:
        checked["covered"] = float(entry["covered"])
        checked["curve"] = [[int(tokens), float(share)] for tokens, share in entry["curve"]]
        checked["weighed"] = int(entry["weighed"])
        if not checked["curve"]:
            raise ValueError("a coverage curve without points")
    return checked


def _checked_sizes(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layers": {str(stack): int(count) for stack, count in sizes["layers"].items()},
        "heads": {
            str(place): {str(int(layer)): [int(row[0]), int(row[1])] for layer, row in rows.items()}
            for place, rows in sizes["heads"].items()
        },
        **({"hidden": int(sizes["hidden"])} if "hidden" in sizes else {}),
        **{kind: _by_layer(sizes[kind]) for kind in ("neurons", "experts") if kind == "neurons" or kind in sizes},
    }


def _by_layer(counts: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {
        str(stack): {str(int(layer)): int(count) for layer, count in rows.items()} for stack, rows in counts.items()
    }
