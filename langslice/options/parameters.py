"""Options as the keyword parameters of a function, and from a mapping of names and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce, wraps
from inspect import Parameter, Signature, signature
from operator import or_
from pathlib import Path
from typing import Any, Final, TypeVar

from langslice.options.declaration import Declared, Entry, Options, check_value, declared, refuse_unknown, renamed
from langslice.progress import shown

_PLAIN: Final[Mapping[str, Any]] = {"str": str, "Path": Path, "bool": bool, "int": int, "float": float, "None": None}
OptionsKind = TypeVar("OptionsKind", bound=Options)
Result = TypeVar("Result")


def build(
    kind: type[OptionsKind], given: Mapping[str, Any], *, what: str = "parameter", beside: Sequence[str] = ()
) -> OptionsKind:
    """Options from a mapping; None asks for the default.

    what    what a name is called in messages
    beside  further names that would be understood in the same place
    Raises  the kind's error for unknown names, for values that do not fit, and for those that are missing
    """
    options = {option.called: option for option in declared(kind).values()}
    given = renamed(given, options.values(), kind.error)
    refuse_unknown(given, [*options, *beside], kind.error, what)
    values = {name: value for name, value in given.items() if value is not None}
    missing = [name for name, option in options.items() if option.required and name not in values]
    if missing:
        raise kind.error(f"`{missing[0]}` is missing", options[missing[0]].entry.help)
    return kind(**{options[name].name: value for name, value in values.items()})


def by_field(kind: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, by the names of the fields; names of other kinds stay."""
    fields = {option.called: name for name, option in declared(kind).items()}
    return {fields.get(name, name): value for name, value in given.items()}


def taking(kind: type[Options], *by_place: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Give a function options as keyword parameters: those of `kind`, which it takes as one value, `options`.

    by_place  options that may also stand behind the function's own parameters, without their names
    Returns   a decorator. The function may still be called with `options` in place of single ones; its signature lists both
    Example   @taking(CountOptions, "corpus")
              def count(model: str, *, options: CountOptions, report: Report = silent) -> TokenCounts: ...
              count("mini", "a.txt", processes=2)
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        own = signature(function).parameters
        plain = Signature([each.replace(default=None) if name == "options" else each for name, each in own.items()])
        placed = [name for name, each in own.items() if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
        checked = _checkable(own)

        @wraps(function)
        def call(*arguments: Any, **given: Any) -> Result:
            mine, others = arguments[: len(placed)], arguments[len(placed) :]
            if len(others) > len(by_place):
                raise TypeError(
                    f"{function.__name__}() takes at most {len(placed) + len(by_place)} values without a name"
                )
            named = {name: given.pop(name) for name in list(given) if name in own}
            bound = plain.bind(*mine, **named)
            for name, option in checked.items():
                if name in bound.arguments:
                    check_value(bound.arguments[name], option, kind.error)
            given |= _named(by_place, others, given)
            bound.arguments["options"] = _ready(kind, bound.arguments.get("options"), given, list(own))
            if "report" not in own or "report" in bound.arguments:
                return function(*bound.args, **bound.kwargs)
            with shown() as bound.arguments["report"]:
                return function(*bound.args, **bound.kwargs)

        call.__signature__ = _shown(own, kind, by_place, signature(function).return_annotation)  # type: ignore[attr-defined]
        return call

    return decorate


def _named(names: Sequence[str], values: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(zip(names, values, strict=False))
    twice = sorted(found.keys() & given.keys())
    if twice:
        raise TypeError(f"`{twice[0]}` is given twice")
    return found


def _ready(kind: type[OptionsKind], ready: Any, given: Mapping[str, Any], own: Sequence[str]) -> OptionsKind:
    """Options that are given as one value, or made from single ones."""
    if ready is None:
        return build(kind, given, beside=[name for name in own if name != "options"])
    if not isinstance(ready, kind):
        raise kind.error(f"`options` must be {kind.__name__}, found {type(ready).__name__}")
    if given:
        raise kind.error(f"`options` says what is asked, so `{min(given)}` cannot be given together with it")
    return ready


def _checkable(own: Mapping[str, Parameter]) -> Mapping[str, Declared]:
    """A function's own parameters of plain types, as options."""
    found = {}
    for name, each in own.items():
        words = str(each.annotation).split(" | ")
        if all(word in _PLAIN for word in words):
            kind = reduce(or_, (_PLAIN[word] for word in words))
            found[name] = Declared(name, kind, Entry("", typed=False), each.default)
    return found


def _shown(own: Mapping[str, Parameter], kind: type[Options], by_place: Sequence[str], returned: Any) -> Signature:
    """A function's parameters, its options by name, and those of its own that stand by name alone."""
    named = {
        option.called: Parameter(
            option.called, Parameter.POSITIONAL_OR_KEYWORD if option.called in by_place else Parameter.KEYWORD_ONLY,
            default=Parameter.empty if option.required else option.default, annotation=option.accepted,
        )
        for option in declared(kind).values()
    }  # fmt: skip
    ready = Parameter("options", Parameter.KEYWORD_ONLY, default=None, annotation=kind | None)
    before = [each for each in own.values() if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    before = [ready.replace(kind=each.kind) if each.name == "options" else each for each in before]
    behind = [each for each in own.values() if each.kind is Parameter.KEYWORD_ONLY]
    behind = [ready if each.name == "options" else each for each in behind]
    options = [each for name, each in named.items() if name not in by_place]
    return Signature([*before, *(named[name] for name in by_place), *options, *behind], return_annotation=returned)
