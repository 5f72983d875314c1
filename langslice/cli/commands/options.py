"""What the commands' options have in common; those that make a choice are built from langslice.options, where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, get_annotations, signature
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from langslice.options import Choice, Entry, Source, entries

Command = Callable[..., None]
# Entries that have another value than None or False where nothing is said.
_DEFAULTS: Mapping[str, Any] = {"text_field": "text"}


def option(*names: str, help: str, metavar: str | None = None) -> Any:
    """An option without a default in its help."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="A local folder, a model on the hub, or `mini`.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)]
HeldOut = Annotated[list[str] | None, option("--text", help="Held-out text to prove the slice on.", metavar="PATH")]
Ray = Annotated[
    str | None, option("--ray", help="Use this Ray cluster: auto, host:port, ray://…, or local.", metavar="ADDRESS")
]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Prove the result, or only write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ShowRecipe = Annotated[
    bool,
    typer.Option("--show-recipe", help="Print the recipe that this amounts to, for `langslice run`, and do no more."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def choosing(choice: type, *names: str) -> Callable[[Command], Command]:
    """Give a command the options of Choice, or of Source, in place of its `**` parameter.

    choice   Choice or Source
    names    those to give, all unless some are named
    Returns  a decorator. The command's own parameters stand before the options, its keyword-only ones behind them; it is
             called with what was given, as the functions of langslice take it, and without what was not
    Example  @choosing(Source)
             def verify(model: Model, *, quiet: Quiet = False, **source: Any) -> None: ...
    """
    taken = {name: entry for name, entry in entries(choice).items() if not names or name in names}

    def decorate(command: Command) -> Command:
        # `typing.get_type_hints` of Python 3.10 hides what is annotated where the default is None.
        hints = get_annotations(command, eval_str=True)
        own = [
            parameter.replace(annotation=hints[parameter.name]) for parameter in signature(command).parameters.values()
        ]
        before = [parameter for parameter in own if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD]
        behind = [parameter for parameter in own if parameter.kind is Parameter.KEYWORD_ONLY]
        options = [_parameter(name, *found) for name, found in taken.items()]
        # All by keyword, so that options with a default may stand before those without.
        shown = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*before, *options, *behind)]

        @wraps(command)
        def taking(**given: Any) -> None:
            # Not everyone who calls a command is typer, which names every option.
            values = {name: given.pop(name, None) for name in taken}
            command(**given, **_given(values))

        taking.__signature__ = Signature(shown, return_annotation=None)  # type: ignore[attr-defined]
        taking.__annotations__ = {each.name: each.annotation for each in shown}
        return taking

    return decorate


def _parameter(name: str, kind: Any, entry: Entry) -> Parameter:
    """An entry as typer takes options: one value, a switch, or an option that may be repeated."""
    scalars = [each for each in get_args(kind) or (kind,) if each in (bool, int, float, str, Path)]
    repeated = any(each not in scalars and each is not type(None) for each in get_args(kind)) and not entry.codes
    shown = typer.Option(
        f"--{name.replace('_', '-')}", *filter(None, [entry.short]), help=entry.help, metavar=entry.metavar,
        show_default=name in _DEFAULTS,
    )  # fmt: skip
    if scalars == [bool]:
        return Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, shown])
    # Where numbers and text are both understood, a shell gives text.
    one: Any = str if str in scalars else scalars[0]
    value = list[one] if repeated else one
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=Annotated[value | None, shown]
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, without what stands there of itself."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value != [] and value != _DEFAULTS.get(name)
    }


__all__ = [
    "Choice", "HeldOut", "Json", "Model", "Out", "Overwrite", "Quiet", "Ray", "ShowRecipe", "Source", "Verify", "choosing",
    "option",
]  # fmt: skip
