"""What the commands' options have in common; those of the library are built from where a room declares them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, get_annotations, signature
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from langslice.options import Declared, Options, declared
from langslice.options.values import json_type

Command = Callable[..., None]


def option(*names: str, help: str, metavar: str | None = None) -> Any:
    """An option without a default in its help."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="A local folder, a model on the hub, or `mini`.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ShowRecipe = Annotated[
    bool,
    typer.Option("--show-recipe", help="Print the recipe that this amounts to, for `langslice run`, and do no more."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def choosing(kind: type[Options]) -> Callable[[Command], Command]:
    """Give a command the options of a room in place of its `**` parameter.

    kind     a dataclass of options
    Returns  a decorator. The command's own parameters are before the options, its keyword-only ones after them; it is
             called with what was given, as the functions of langslice take it, and without what was not
    Example  @choosing(VerifyOptions)
             def verify(model: Model, *, quiet: Quiet = False, **given: Any) -> None: ...
    """
    taken = {name: option for name, option in declared(kind).items() if option.entry.typed}

    def decorate(command: Command) -> Command:
        # `typing.get_type_hints` of Python 3.10 hides what is annotated where the default is None.
        hints = get_annotations(command, eval_str=True)
        own = [
            parameter.replace(annotation=hints[parameter.name]) for parameter in signature(command).parameters.values()
        ]
        before = [parameter for parameter in own if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD]
        behind = [parameter for parameter in own if parameter.kind is Parameter.KEYWORD_ONLY]
        options = [_parameter(option) for option in taken.values()]
        # All by keyword, so that options with a default may be before those without.
        shown = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*before, *options, *behind)]

        @wraps(command)
        def taking(**given: Any) -> None:
            # Not everyone who calls a command is typer, which names every option.
            values = {name: given.pop(name, None) for name in taken}
            command(**given, **_given(values, taken))

        taking.__signature__ = Signature(shown, return_annotation=None)  # type: ignore[attr-defined]
        taking.__annotations__ = {each.name: each.annotation for each in shown}
        return taking

    return decorate


def _parameter(option: Declared) -> Parameter:
    """An option as typer takes it: one value, a switch, or an option that may be repeated."""
    entry, flag = option.entry, f"--{option.called.replace('_', '-')}"
    kinds = _scalars(option.kind)
    default: Any = Parameter.empty if option.required else option.default
    if entry.argument:
        shown = typer.Argument(metavar=entry.metavar, help=entry.help)
        return Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kinds[0], shown])
    if kinds == [bool]:
        flag = f"{flag}/--no-{flag.removeprefix('--')}" if default is True else flag
        switch = typer.Option(flag, help=entry.help)
        return Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[bool, switch])
    several = any(json_type(each) == "array" for each in (option.kind, *get_args(option.kind)))
    repeated = several and not entry.codes and not entry.alone
    # Where numbers and text are both understood, a shell gives text.
    one: Any = str if str in kinds else kinds[0]
    if several and default is not Parameter.empty:
        default = ",".join(default) or None if entry.codes else len(default) or None if entry.alone else None
    hint = list[one] if repeated else one
    shown = typer.Option(
        flag, *filter(None, [entry.short]), help=entry.help, metavar=entry.metavar,
        show_default=default is not None and default is not Parameter.empty,
    )  # fmt: skip
    return Parameter(
        option.name, Parameter.KEYWORD_ONLY, default=default,
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


__all__ = ["Json", "Model", "Out", "Overwrite", "Quiet", "ShowRecipe", "choosing", "option"]
