"""An option: a field of a frozen dataclass, and what is known of it; names and values that do not fit are refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from types import GenericAlias
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from langslice.errors import LangsliceError, OptionError
from langslice.options.values import kind_schema, misfit, near_value
from langslice.wording import worded


@dataclass(frozen=True)
class Entry:
    """What there is to know of an option beside its type and default.

    help      one sentence, as it stands in the help of commands, in the schema of recipes and in the reference
    metavar   what stands for the value in the help of commands
    short     one-letter option
    codes     several values are one text with commas, not an option that is repeated
    least     bounds of a number, both included
    most      the upper one
    above     a bound that is not included
    values    the only texts that are understood
    named     what callers call it (command line, Python, recipes), where records keep the field's name
    written   what command lines call it, where that is no name in Python
    was       names that it had in the last release, which still work and say so
    common    whether it is among those that the help of a command shows first
    argument  on command lines it stands by its place, under its metavar
    alone     on command lines it has one value, where Python takes several
    typed     whether command lines have it
    """

    help: str
    metavar: str | None = None
    short: str | None = None
    codes: bool = False
    least: float | None = None
    most: float | None = None
    above: float | None = None
    values: tuple[str, ...] = ()
    named: str | None = None
    written: str | None = None
    was: tuple[str, ...] = ()
    common: bool = False
    argument: bool = False
    alone: bool = False
    typed: bool = True


@dataclass(frozen=True)
class Declared:
    """An option: its field, its type without annotations, what is known of it, and its default; `...` where it must be given.

    group  heading under which help and reference show it
    """

    name: str
    kind: Any
    entry: Entry
    default: Any
    group: str = "Options"

    @property
    def called(self) -> str:
        """What callers call it."""
        return self.entry.named or self.name

    @property
    def flag(self) -> str:
        """What command lines call it, with its dashes."""
        return flag(self.entry.written or self.called)

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is ...

    @property
    def accepted(self) -> Any:
        """What a caller may give; fields that hold a tuple take one value alone, too."""
        if get_origin(self.kind) is not tuple:
            return self.kind
        inner = get_args(self.kind)[0]
        return inner | GenericAlias(Sequence, (inner,))

    def schema(self) -> dict[str, Any]:
        """JSON schema of its values; null is as if the option were not given."""
        entry, found = self.entry, {"description": self.entry.help, **kind_schema(self.kind)}
        bounds = {"minimum": entry.least, "maximum": entry.most, "exclusiveMinimum": entry.above}
        found |= {name: bound for name, bound in bounds.items() if bound is not None}
        if entry.values and found["type"] == ["string", "null"]:
            found["enum"] = [*entry.values, None]
        return found


@dataclass(frozen=True)
class Options:
    """Options of one job or room; values are checked when they are given.

    error  what is raised for a value that does not fit
    group  heading under which help and reference show the options that a class declares itself
    """

    error: ClassVar[type[LangsliceError]] = OptionError
    group: ClassVar[str] = "Options"

    def __post_init__(self) -> None:
        for name, option in declared(type(self)).items():
            value = getattr(self, name)
            if not _same(value, option.default):
                check_value(value, option, self.error)

    def given(self) -> dict[str, Any]:
        """Name -> value of what was asked: not what stands at its default, and no empty list."""
        found = {name: getattr(self, name) for name in declared(type(self))}
        return {name: value for name, value in found.items() if not self._is_default(name, value)}

    def _is_default(self, name: str, value: Any) -> bool:
        return _same(value, declared(type(self))[name].default) or (isinstance(value, list | tuple) and not value)


def _same(value: Any, default: Any) -> bool:
    # An array of numpy is equal to nothing as a whole.
    return value is default or (type(value) is type(default) and bool(value == default))


def declared(kind: type) -> Mapping[str, Declared]:
    """Name -> option of a dataclass of options, in their order; fields without an Entry are no options.

    Example   declared(PlanOptions)["top_k"].kind == int | None
    """
    return _declared(kind)


@lru_cache
def _declared(kind: Any) -> Mapping[str, Declared]:
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        entry = _entry(hints[field.name])
        if entry is not None:
            default = ... if field.default is MISSING else field.default
            home = next(each for each in kind.__mro__ if field.name in vars(each).get("__annotations__", ()))
            group = getattr(home, "group", Options.group)
            found[field.name] = Declared(field.name, hints[field.name].__origin__, entry, default, group)
    return found


def _entry(hint: Any) -> Entry | None:
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Entry)), None)


def check_value(value: Any, option: Declared, error: type[LangsliceError] = OptionError) -> None:
    """Refuse a value of another type, beyond its bounds, or none of those that are understood. Raises `error`."""
    schema = option.schema()
    fault = misfit(value, schema)
    if fault is None:
        return
    by_name = option.entry.typed and not option.entry.argument
    shown = option.flag if by_name else f"`{option.called}`"
    raise error(f"{shown} {fault}", near_value(value, schema) or option.entry.help or None)


def renamed(
    given: Mapping[str, Any], options: Iterable[Declared], error: type[LangsliceError] = OptionError
) -> dict[str, Any]:
    """What was given, by the names that options have today; each former name is announced by a FutureWarning.

    Raises  `error` where an option is given by both names
    """
    today = {old: option.called for option in options for old in option.entry.was}
    found: dict[str, Any] = {}
    for name, value in given.items():
        new = today.get(name, name)
        if new in found or (new != name and new in given):
            old = next(old for old, each in today.items() if each == new and old in given)
            raise error(
                f"{flag(old)} is the former name of {flag(new)}, and both are given", "leave the former one out"
            )
        if new != name:
            message = f"{flag(name)} is now called {flag(new)}; the former name works until the next release"
            warnings.warn(worded(message), FutureWarning, stacklevel=3)
        found[new] = value
    return found


def flag(name: str) -> str:
    """An option as a command line calls it."""
    return f"--{name.replace('_', '-')}"


def flag_of(kind: type, field: str) -> str:
    """A field of a dataclass of options as a command line calls it; what is no field of it, by the same rule."""
    option = declared(kind).get(field)
    return option.flag if option else flag(field)


def refuse_unknown(names: Iterable[str], known: Sequence[str], error: type[LangsliceError], what: str) -> None:
    """Refuse a name that is not known, with the nearest one that is. Raises `error`."""
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
            raise error(f"unknown {what} `{name}`", hint)
