"""The form of a document: of which kind each value in it must be, told apart before anything is read from it.

A form is written as the document looks:

    str, int, float, bool, dict, list     a value of that kind (int fits 64 bits; float is finite, and may be written as int)
    None                                  null
    (form, form)                          one of these
    [form]                                a list of such values
    {"name": form, "other?": form}        an object with `name` and perhaps `other`; what else it holds is not looked at
    {"*": form}                           an object all of whose other values are such
    FixedList(form, form)                       a list of exactly these
    Among("a", "b")                       one of these texts
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langslice.errors import LangsliceError

_NAMES: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list",
    type(None): "null", None: "null",
}  # fmt: skip
_SHOWN = 60


@dataclass(frozen=True, init=False)
class FixedList:
    """A list of fixed length."""

    forms: tuple[Any, ...]

    def __init__(self, *forms: Any) -> None:
        object.__setattr__(self, "forms", forms)


@dataclass(frozen=True, init=False)
class Among:
    """One of some texts."""

    texts: tuple[str, ...]

    def __init__(self, *texts: str) -> None:
        object.__setattr__(self, "texts", texts)


def check_form(value: Any, form: Any, place: str, error: type[LangsliceError], hint: str | None = None) -> None:
    """Refuse a document of another form, naming the first value that does not fit.

    place    where the document is: a file, or a place in it
    Example  check_form({"a": [1, "x"]}, {"a": [int]}, "f.json", PlanError) says
             f.json: `a.1` must be a whole number, found "x"
    """
    fault = _fault(value, form, ())
    if fault is not None:
        path, expected, found = fault
        where = f"`{'.'.join(path)}`" if path else "the document"
        raise error(f"{place}: {where} must be {expected}, found {found}", hint)


def read_json(path: Path, error: type[LangsliceError], hint: str | None = None, *, halves: bool = False) -> Any:
    """Read a JSON file.

    halves  allow halves of surrogate pairs, which our own records hold where a path is no text
    Raises  `error` when it cannot be read, is not UTF-8, not JSON, or nests too deeply; FileNotFoundError is left to the caller
    """
    try:
        return parse_json(path.read_bytes(), halves=halves)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}", hint) from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not readable as JSON: {problem}", hint) from problem


def parse_json(raw: bytes, *, halves: bool = False) -> Any:
    """Parse JSON in UTF-8 whose texts are texts: an escape of half a surrogate pair is JSON, and cannot be written again.

    halves  allow them all the same
    Raises  ValueError (of which JSONDecodeError and UnicodeError are kinds), RecursionError
    """
    value = json.loads(raw.decode("utf-8"))
    if not halves and (b"\\ud" in raw or b"\\uD" in raw):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _fault(value: Any, form: Any, path: tuple[str, ...]) -> tuple[tuple[str, ...], str, str] | None:
    """Path, what was expected there, and what was found; None where all fits."""
    if isinstance(form, tuple):
        faults = [_fault(value, one, path) for one in form]
        if None in faults:
            return None
        # The fault that lies deepest is of the form that was meant.
        deepest = max((fault for fault in faults if fault is not None), key=lambda fault: len(fault[0]))
        return deepest if len(deepest[0]) > len(path) else (path, _name(form), _shown(value))
    if isinstance(form, list | FixedList):
        if not isinstance(value, list) or (isinstance(form, FixedList) and len(value) != len(form.forms)):
            return path, _name(form), _shown(value)
        forms = form.forms if isinstance(form, FixedList) else (form[0],) * len(value)
        items = ((str(at), item, one) for at, (item, one) in enumerate(zip(value, forms, strict=True)))
        return next((fault for at, item, one in items if (fault := _fault(item, one, (*path, at)))), None)
    if isinstance(form, dict):
        return _fault_of_object(value, form, path)
    return None if _fits(value, form) else (path, _name(form), _shown(value))


def _fault_of_object(
    value: Any, form: dict[str, Any], path: tuple[str, ...]
) -> tuple[tuple[str, ...], str, str] | None:
    if not isinstance(value, dict):
        return path, "an object", _shown(value)
    named = {key.removesuffix("?"): one for key, one in form.items() if key != "*"}
    for key, one in named.items():
        if key not in value:
            if f"{key}?" not in form:
                return (*path, key), _name(one), "nothing"
        elif fault := _fault(value[key], one, (*path, key)):
            return fault
    if "*" in form:
        others = (key for key in value if key not in named)
        return next((fault for key in others if (fault := _fault(value[key], form["*"], (*path, str(key))))), None)
    return None


def _fits(value: Any, form: Any) -> bool:
    if isinstance(form, Among):
        return isinstance(value, str) and value in form.texts
    if form is None:
        return value is None
    if form is int:
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    if form is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    if form is str:
        return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, form)


def _name(form: Any) -> str:
    if isinstance(form, Among):
        return " or ".join(form.texts)
    if isinstance(form, FixedList):
        return f"a list of {len(form.forms)}"
    if isinstance(form, tuple):
        return " or ".join(map(_name, form))
    return _NAMES[type(form) if isinstance(form, list | dict) else form]


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an endless number, or a list in a list in a list
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
