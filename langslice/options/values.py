"""Values and their types: as JSON schema, in words, and whether one fits the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args, get_origin

_WORDS: Final = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false",
                 "array": "a list", "object": "a mapping"}  # fmt: skip
_BOUNDS: Final = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}


def kind_schema(kind: Any) -> dict[str, Any]:
    """JSON schema of values of a type, or null; one value of several may stand alone.

    Example  kind_schema(float | None) == {"type": ["number", "null"]}
    """
    kinds = alternatives(kind)
    schema: dict[str, Any] = {"type": list(dict.fromkeys([*map(json_type, kinds), "null"]))}
    for each in kinds:
        if json_type(each) == "array":
            inner = {json_type(one) for items in get_args(each) if items is not ... for one in alternatives(items)}
            schema["items"] = {"type": sorted(inner)}
            schema["type"] = list(dict.fromkeys([*schema["type"][:-1], *sorted(inner), "null"]))
    return schema


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union; a type that is none, alone."""
    return (kind,) if json_type(kind) == "array" else get_args(kind) or (kind,)


def json_type(kind: Any) -> str:
    """What a type is called in JSON; text, where there is nothing better."""
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str:
        return "array"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    return {bool: "boolean", int: "integer", float: "number", NoneType: "null"}.get(origin, "string")


def is_json(value: Any, kind: str) -> bool:
    """Whether a value is of a JSON type; paths are text, what is of several values a list."""
    if kind in ("integer", "number"):
        return isinstance(value, Integral if kind == "integer" else Real) and not isinstance(value, bool)
    types = {"string": str | Path, "boolean": bool, "object": Mapping, "null": NoneType}
    if kind == "array":
        return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
    return isinstance(value, types[kind])


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a value: "must be a number from 0 to 1, found 'high'"; None where it fits."""
    if not any(is_json(value, kind) for kind in schema["type"]):
        return f"must be {expected(schema)}, found {value!r}"
    if is_json(value, "array"):
        for item in value:
            if not any(is_json(item, kind) for kind in schema.get("items", schema)["type"]):
                words = " or ".join(_WORDS[kind] for kind in schema["items"]["type"])
                return f"must be a list of {words}, found {item!r} in it"
    elif value is not None and "enum" in schema and value not in schema["enum"]:
        return f"must be one of {', '.join(each for each in schema['enum'] if each is not None)}, found {value!r}"
    elif is_json(value, "number") and not _within(value, schema):
        return f"must be {expected(schema)}, found {value}"
    return None


def _within(value: Any, schema: Mapping[str, Any]) -> bool:
    inside = isfinite(value) and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return bool(inside and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"]))


def expected(schema: Mapping[str, Any]) -> str:
    """Types and bounds in words: "a number from 0 to 1"."""
    kinds = [_WORDS[kind] for kind in schema["type"] if kind != "null"]
    bounds = [f"{words} {schema[name]:g}" for name, words in _BOUNDS.items() if name in schema]
    if {"minimum", "maximum"} <= set(schema):
        bounds = [f"from {schema['minimum']:g} to {schema['maximum']:g}"]
    return " ".join(filter(None, [" or ".join(kinds), " and ".join(bounds)]))


def near_value(value: Any, schema: Mapping[str, Any]) -> str | None:
    """A question after the nearest text that is understood."""
    near = get_close_matches(str(value), [text for text in schema.get("enum", ()) if text is not None], n=1)
    return f"did you mean `{near[0]}`?" if near else None
