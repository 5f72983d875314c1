"""A row of the table as Python: what `inspect --row` prints, a plan records, and model/families.py takes as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from langslice.errors import PlanError
from langslice.model.families import body_of, family_of, is_known_type
from langslice.model.layer_fields import table_body

_WIDTH = 110


def row_text(config: Mapping[str, Any]) -> str:
    """Both rows of a configuration, from the tables or derived from its class; raises as family_of does."""
    try:
        body = _text(body_of(config), "")
    except PlanError as error:
        body = "".join(f"# {line}\n" for line in error.message.splitlines()).rstrip()
    return f"# model/families.py\n{_text(family_of(config), '')}\n# model/layer_fields.py\n{body}"


def derived_text(config: Mapping[str, Any], *, structure: bool) -> str:
    """Both rows where one that a plan rests on was derived; "" where the tables have it.

    structure  whether the plan changes layers, heads or neurons
    """
    known = is_known_type(config.get("model_type")) and not (structure and table_body(config["model_type"]) is None)
    return "" if known else row_text(config)


def _text(value: Any, indent: str) -> str:
    if is_dataclass(value):
        given = [(one, getattr(value, one.name)) for one in fields(value)]
        placed = next((at for at, (one, found) in enumerate(given) if found == _default(one)), len(given))
        parts = [_text(found, indent + "    ") for _, found in given[:placed]]
        parts += [
            f"{one.name}={_text(found, indent + '    ')}" for one, found in given[placed:] if found != _default(one)
        ]
        return _joined(f"{type(value).__name__}(", parts, ")", indent)
    if isinstance(value, tuple):
        return _joined("(", [_text(one, indent + "    ") for one in value], ",)" if len(value) == 1 else ")", indent)
    if isinstance(value, Mapping):
        parts = [f"{_text(key, indent)}: {_text(one, indent + '    ')}" for key, one in value.items()]
        return _joined("{", parts, "}", indent)
    return f'r"{value}"' if isinstance(value, str) and "\\" in value else _quoted(value)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) and '"' not in value else repr(value)


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _joined(opening: str, parts: list[str], closing: str, indent: str) -> str:
    line = opening + ", ".join(parts) + closing
    if len(indent) + len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = indent + "    "
    return opening + "\n" + "".join(f"{inner}{part},\n" for part in parts) + indent + closing.lstrip(",")
