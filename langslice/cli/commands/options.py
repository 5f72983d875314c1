"""What the commands' options have in common; those of the library are built from where a room declares them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, get_annotations, signature
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from langslice.options import Declared, Options, declared, renamed
from langslice.options.values import json_type

USED = "Most used"
"""Heading of the options that the help of a command shows first."""
# Letters that options had under their former names.
_FORMER_SHORTS = {"texts": "-t"}
Command = Callable[..., None]


def option(*names: str, help: str, metavar: str | None = None, panel: str = USED) -> Any:
    """An option without a default in its help."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False, rich_help_panel=panel)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="A local folder, a model on the hub, or `mini`.")]
ModelOrGguf = Annotated[
    str, typer.Argument(metavar="MODEL", help="A local folder, a model on the hub, `mini`, or a GGUF file.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.", show_default=False, rich_help_panel=USED)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.", rich_help_panel="Output")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel="Run")]
ShowRecipe = Annotated[
    bool,
    typer.Option("--show-recipe", help="Print the equivalent recipe and exit.", rich_help_panel="Run"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary.", rich_help_panel="Run")]


def choosing(kind: type[Options]) -> Callable[[Command], Command]:
    """Give a command the options of a room in place of its `**` parameter.

    kind     a dataclass of options
    Returns  a decorator. The command's own parameters are before the options, its keyword-only ones after them; it is
             called with what was given, as the functions of langslice take it, and without what was not
    Example  @choosing(VerifyOptions)
             def verify(model: Model, *, quiet: Quiet = False, **given: Any) -> None: ...
    """
    taken = {option.called: option for option in declared(kind).values() if option.entry.typed}
    # Each former name after the present one, so that what is given keeps its order.
    named = {name: option for new, option in taken.items() for name in (new, *option.entry.was)}

    def decorate(command: Command) -> Command:
        # `typing.get_type_hints` of Python 3.10 hides what is annotated where the default is None.
        hints = get_annotations(command, eval_str=True)
        own = [
            parameter.replace(annotation=hints[parameter.name]) for parameter in signature(command).parameters.values()
        ]
        before = [parameter for parameter in own if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD]
        behind = [parameter for parameter in own if parameter.kind is Parameter.KEYWORD_ONLY]
        options = [_parameter(option) if name in taken else _former(name, option) for name, option in named.items()]
        # All by keyword, so that options with a default may be before those without.
        shown = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*before, *options, *behind)]

        @wraps(command)
        def taking(**given: Any) -> None:
            # Not everyone who calls a command is typer, which names every option.
            values = {name: given.pop(name, None) for name in named}
            command(**given, **renamed(_given(values, named), taken.values(), kind.error))

        taking.__signature__ = Signature(shown, return_annotation=None)  # type: ignore[attr-defined]
        taking.__annotations__ = {each.name: each.annotation for each in shown}
        return taking

    return decorate


def _former(old: str, option: Declared) -> Parameter:
    """An option under a name that it had in the last release; the help does not show it."""
    entry = replace(option.entry, named=old, short=_FORMER_SHORTS.get(option.name))
    return _parameter(
        replace(option, name=old, entry=entry, default=None if option.required else option.default), hidden=True
    )


def _parameter(option: Declared, *, hidden: bool = False) -> Parameter:
    """An option as typer takes it: one value, a switch, or an option that may be repeated."""
    entry, written, name = option.entry, option.flag, option.called
    panel = USED if entry.common else option.group
    kinds = _scalars(option.kind)
    default: Any = Parameter.empty if option.required else option.default
    if entry.argument:
        shown = typer.Argument(metavar=entry.metavar, help=entry.help)
        return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kinds[0], shown])
    if kinds == [bool]:
        written = f"{written}/--no-{written.removeprefix('--')}" if default is True else written
        switch = typer.Option(written, help=entry.help, hidden=hidden, rich_help_panel=panel)
        return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[bool, switch])
    several = any(json_type(each) == "array" for each in (option.kind, *get_args(option.kind)))
    repeated = several and not entry.codes and not entry.alone
    # Where numbers and text are both understood, a shell gives text.
    one: Any = str if str in kinds else kinds[0]
    if several and default is not Parameter.empty:
        default = ",".join(default) or None if entry.codes else len(default) or None if entry.alone else None
    hint = list[one] if repeated else one
    shown = typer.Option(
        written, *filter(None, [entry.short]), help=entry.help, metavar=entry.metavar, hidden=hidden, rich_help_panel=panel,
        show_default=default is not None and default is not Parameter.empty,
    )  # fmt: skip
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=default,
        annotation=Annotated[hint if default is Parameter.empty else hint | None, shown],
    )  # fmt: skip


def _scalars(kind: Any) -> list[Any]:
    """The plain types that a type is made of."""
    if kind in (bool, int, float, str, Path):
        return [kind]
    return list(dict.fromkeys(one for each in get_args(kind) for one in _scalars(each)))


def _given(values: dict[str, Any], taken: dict[str, Declared]) -> dict[str, Any]:
    """What was typed, without what is there of itself."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and value != [] and value not in (taken[name].default, _parameter(taken[name]).default)
    }


__all__ = ["USED", "Json", "Model", "ModelOrGguf", "Out", "Overwrite", "Quiet", "ShowRecipe", "choosing", "option"]
