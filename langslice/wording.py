"""Options in the words of whoever reads a message: `--max-vocab 500`, `max_vocab=500` in Python, `max_vocab: 500` in a recipe.

The library writes messages with the options of command lines. They become parameters unless the command line itself, or a recipe,
has said that it speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

OPTIONS: Final = "options"
PARAMETERS: Final = "parameters"
ENTRIES: Final = "entries"
# A command in backticks stays as it is; else an option, alone in backticks or not, and the word after it.
_OPTION = re.compile(
    r"(?P<command>`[^`]* -[^`]*`)|(?<![\w`-])(?P<tick>`?)--(?P<no>no-)?(?P<name>[a-z][a-z0-9-]*[a-z0-9])(?P=tick)"
    r"(?: (?P<value>\"[^\"]*\"|'[^']*'|(?!-)[^\s`]+))?"
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]+")
# What is a keyword of Python has another name there.
_NAMES: Final = {"for": "purpose"}
_manner = PARAMETERS


@contextmanager
def speaking(manner: str) -> Iterator[None]:
    """Say how options are called in the errors that arise inside: OPTIONS, PARAMETERS or ENTRIES."""
    global _manner
    before, _manner = _manner, manner
    try:
        yield
    finally:
        _manner = before


def worded(text: str) -> str:
    """A message with its options in the words of whoever reads it.

    Example  worded("add --corpus PATH, or leave --language-id away") ==
             "add `corpus=PATH`, or leave `language_id` away"
    """
    return text if _manner == OPTIONS or "--" not in text else _OPTION.sub(_replaced, text)


def _replaced(found: re.Match[str]) -> str:
    if found["command"]:
        return found[0]
    name, value = found["name"].replace("-", "_"), found["value"] or ""
    name = _NAMES.get(name, name)
    word = value.rstrip(".,;:)")
    rest = value[len(word) :]
    if found["no"]:
        return f"`{_given(name, 'False' if _manner == PARAMETERS else 'false')}`{found[0][found.end('name') - found.start() :]}"
    if not _is_value(word):
        return f"`{name}`" + (f" {value}" if value else "")
    return f"`{_given(name, word)}`{rest}"


def _is_value(word: str) -> bool:
    """Whether a word after an option is a value of it, and not the next word of the sentence."""
    return bool(word) and (word[0] in "\"'*!" or word[0].isupper() or any(sign in word for sign in "0123456789.,:=/*"))


def _given(name: str, value: str) -> str:
    if _manner == ENTRIES:
        return f"{name}: {value}"
    plain = _NUMBER.fullmatch(value) or _PLACEHOLDER.fullmatch(value) or value[0] in "\"'" or value in ("True", "False")
    return f"{name}={value}" if plain else f'{name}="{value}"'
