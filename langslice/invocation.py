"""The command that a person typed, for records and reports; empty where langslice is used as a library."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

# A secret follows these.
_SECRETS = ("--token",)
_typed: ContextVar[tuple[str, ...]] = ContextVar("typed_command", default=())


def remember_command(arguments: Sequence[str]) -> None:
    """Note what was typed after the program's name; called once, by the command line."""
    _typed.set(("langslice", *_without_secrets(arguments)))


def typed_command() -> tuple[str, ...]:
    """The command as it was typed, secrets replaced; () in a program that uses langslice as a library."""
    return _typed.get()


def _without_secrets(arguments: Sequence[str]) -> list[str]:
    """Arguments with "..." where a token was given.

    Example  ["slice", "m", "--token", "hf_x"] -> ["slice", "m", "--token", "..."]
    """
    shown: list[str] = []
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hide:
            shown.append("...")
        elif equals and name in _SECRETS:
            shown.append(f"{name}=...")
        else:
            shown.append(argument)
        hide = not hide and argument in _SECRETS
    return shown
