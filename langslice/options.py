"""Options: what a user can ask, declared once as fields of frozen dataclasses.

A room declares its own in its options.py: each field says its type and its default, and in an `Entry` what else there is to
know of it. Functions take them as keyword parameters (`taking`), command lines as options, recipes as entries; names and values
are checked here for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import lru_cache, reduce, wraps
from inspect import Parameter, Signature, signature
from operator import or_
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, ClassVar, Final, TypeVar, get_args, get_origin, get_type_hints

from langslice.errors import LangsliceError, OptionError
from langslice.progress import logged
from langslice.values import is_json, kind_schema, misfit, near_value

Choice = Mapping[str, Any]
"""What was asked, name -> value, without what was not; of the options of langslice.planning.options."""
# Entries that a plan does not record: secrets, and what does not change the result.
_UNRECORDED = frozenset({"token", "cache_dir", "processes", "revision"})
_PLAIN: Final[Mapping[str, Any]] = {"str": str, "Path": Path, "bool": bool, "int": int, "float": float, "None": None}


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
    named     what command lines and recipes call it, where that is not the field's name
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
    argument: bool = False
    alone: bool = False
    typed: bool = True


@dataclass(frozen=True)
class Declared:
    """An option: its name, its type without annotations, what is known of it, and its default; `...` where it must be given."""

    name: str
    kind: Any
    entry: Entry
    default: Any

    @property
    def called(self) -> str:
        """What command lines and recipes call it."""
        return self.entry.named or self.name

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
    """

    error: ClassVar[type[LangsliceError]] = OptionError

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


Corpus = Annotated[
    str | Path | Sequence[str | Path],
    Entry("Text to count: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset.", "PATH", "-c"),
]
Revision = Annotated[str | None, Entry("Branch, tag or commit of a hub model.", "NAME")]
TextField = Annotated[str, Entry("Field of jsonl and parquet records that holds the text.", "NAME")]
HeldOut = Annotated[str | Path | Sequence[str | Path], Entry("Held-out text to prove the result on.", "PATH")]
Verify = Annotated[bool, Entry("Prove the result, or only write.")]
Threads = Annotated[int, Entry("Threads that write.", least=1)]
Ray = Annotated[str | None, Entry("Use this Ray cluster: auto, host:port, ray://…, or local.", "ADDRESS")]
Processes = Annotated[int | None, Entry("Processes that count; all cores unless given.", "N", least=1)]


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """Which version of a model on the hub, and how to get at it."""

    revision: Revision = None
    token: Annotated[str | None, Entry("Hub token, for gated models.", "TOKEN")] = None
    cache_dir: Annotated[str | Path | None, Entry("Hub cache.", "DIR")] = None

    def source(self) -> dict[str, Any]:
        """These three alone, as `open_checkpoint` takes them."""
        cache = None if self.cache_dir is None else Path(self.cache_dir)
        return {"revision": self.revision, "token": self.token, "cache_dir": cache}


@dataclass(frozen=True, kw_only=True)
class VerificationOptions(Options):
    """How a result is proven."""

    text: HeldOut = ()
    verify: Verify = True


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
            found[field.name] = Declared(field.name, hints[field.name].__origin__, entry, default)
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
    shown = f"--{option.called.replace('_', '-')}" if by_name else f"`{option.called}`"
    raise error(f"{shown} {fault}", near_value(value, schema) or option.entry.help or None)


def refuse_unknown(names: Iterable[str], known: Sequence[str], error: type[LangsliceError], what: str) -> None:
    """Refuse a name that is not known, with the nearest one that is. Raises `error`."""
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
            raise error(f"unknown {what} `{name}`", hint)


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
    options = declared(kind)
    refuse_unknown(given, [*options, *beside], kind.error, what)
    values = {name: value for name, value in given.items() if value is not None}
    missing = [name for name, option in options.items() if option.required and name not in values]
    if missing:
        raise kind.error(f"`{missing[0]}` is missing", options[missing[0]].entry.help)
    return kind(**values)


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
            if "report" in own:
                bound.arguments.setdefault("report", logged())
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
        raise kind.error(f"`options` says what is asked, so `{min(given)}` cannot be given beside it")
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
        name: Parameter(
            name, Parameter.POSITIONAL_OR_KEYWORD if name in by_place else Parameter.KEYWORD_ONLY,
            default=Parameter.empty if option.required else option.default, annotation=option.accepted,
        )
        for name, option in declared(kind).items()
    }  # fmt: skip
    ready = Parameter("options", Parameter.KEYWORD_ONLY, default=None, annotation=kind | None)
    before = [each for each in own.values() if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    before = [ready.replace(kind=each.kind) if each.name == "options" else each for each in before]
    behind = [each for each in own.values() if each.kind is Parameter.KEYWORD_ONLY]
    behind = [ready if each.name == "options" else each for each in behind]
    options = [each for name, each in named.items() if name not in by_place]
    return Signature([*before, *(named[name] for name in by_place), *options, *behind], return_annotation=returned)


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
        if is_json(value, "array"):
            plain[name] = [str(item) for item in value]
        else:
            plain[name] = value if isinstance(value, int | float) else str(value)
    return plain
