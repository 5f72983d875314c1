"""From options back to the words of a command line that gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langslice.options.choice import listed
from langslice.options.declaration import Declared, declared, flag
from langslice.options.values import is_json


def typed_words(kind: type, given: Mapping[str, Any]) -> list[str]:
    """What is typed to ask for options.

    kind     a dataclass of options
    given    name -> value, by the names that callers use; None and empty values ask for nothing
    Returns  words of a shell, not quoted
    Example  {"languages": ("ko", "en"), "drop_heads": ("0:1", "2:3"), "verify": False} gives
             --languages ko,en --drop-heads 0:1 --drop-heads 2:3 --no-verify
    """
    options = {option.called: option for option in declared(kind).values() if option.entry.typed}
    wanted = ((options[name], value) for name, value in given.items() if name in options)
    return [word for option, value in wanted for word in _words(option, value)]


def _words(option: Declared, value: Any) -> Iterable[str]:
    name = flag(option.called)
    if value is None or value is option.default or (is_json(value, "array") and not len(value)):
        return []
    if isinstance(value, bool):
        return [name if value else f"--no-{name.removeprefix('--')}"]
    values = listed(value) if is_json(value, "array") else (str(value),)
    if option.entry.codes:
        values = (",".join(values),)
    return [word for each in values for word in (name, each)]
