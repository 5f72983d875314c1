"""Scripts of characters and text, and their names.

Scripts are ISO 15924 codes from the Unicode character database, as fontTools carries it (Scripts.txt and
ScriptExtensions.txt; Unicode Standard Annex 24). A character that several scripts share but that is not everyone's,
such as the ideographic full stop, belongs to the scripts of its extension; one that is everyone's belongs to none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from langslice.errors import LanguageError

NEUTRAL: Final = frozenset({"Zyyy", "Zinh"})
UNASSIGNED: Final = "Zzzz"
CODE_POINTS: Final = 0x110000

# ISO 15924 codes for a writing system of several scripts, or for a variant of one: (Unicode scripts)
WRITING_SYSTEMS: Final = {
    "Kore": ("Hang", "Hani"),
    "Jpan": ("Hira", "Kana", "Hani"),
    "Hrkt": ("Hira", "Kana"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
    "Hanb": ("Hani", "Bopo"),
    "Jamo": ("Hang",),
    "Aran": ("Arab",),
    "Cyrs": ("Cyrl",),
    "Latf": ("Latn",),
    "Latg": ("Latn",),
    "Syre": ("Syrc",),
    "Syrj": ("Syrc",),
    "Syrn": ("Syrc",),
    "Geok": ("Geor",),
}


@dataclass(frozen=True)
class ScriptTable:
    """Script of every code point.

    names       script codes; index 0 is the first
    codes       (1114112,) uint8, index into `names`
    extensions  code point -> scripts that share it, only where Unicode lists them
    """

    names: tuple[str, ...]
    codes: np.ndarray[Any, np.dtype[np.uint8]]
    extensions: dict[int, frozenset[str]]


@lru_cache(maxsize=1)
def script_table() -> ScriptTable:
    """Spread the Unicode script ranges over all code points (under 5 ms)."""
    from fontTools.unicodedata import ScriptExtensions, Scripts

    names = tuple(sorted(set(Scripts.VALUES)))
    number = {name: index for index, name in enumerate(names)}
    starts = np.asarray(Scripts.RANGES, dtype=np.int64)
    lengths = np.diff(np.append(starts, CODE_POINTS))
    values = np.asarray([number[name] for name in Scripts.VALUES], dtype=np.uint8)
    extensions: dict[int, frozenset[str]] = {}
    ends = (*ScriptExtensions.RANGES[1:], CODE_POINTS)
    for start, end, scripts in zip(ScriptExtensions.RANGES, ends, ScriptExtensions.VALUES, strict=True):
        if scripts is not None:
            extensions.update(dict.fromkeys(range(start, end), frozenset(scripts)))
    return ScriptTable(names, np.repeat(values, lengths), extensions)


@lru_cache(maxsize=200_000)
def scripts_of_character(character: str) -> frozenset[str]:
    """Scripts that one character belongs to; empty when it is everyone's (space, ASCII digits, most punctuation).

    "a" -> {"Latn"}; "ー" -> {"Hira", "Kana"}; "!" -> {}. Unassigned characters give {"Zzzz"}.
    """
    table = script_table()
    code = ord(character)
    script = table.names[table.codes[code]]
    if script not in NEUTRAL:
        return frozenset({script})
    return table.extensions.get(code, frozenset())


def script_of_text(text: str) -> str:
    """The script that most letters of a text are written in, "Zyyy" when no character has one of its own.

    Ties go to the script that comes first in the text.
    """
    seen: Counter[str] = Counter()
    table = script_table()
    for character in text:
        script = table.names[table.codes[ord(character)]]
        if script not in NEUTRAL and script != UNASSIGNED:
            seen[script] += 1
    return seen.most_common(1)[0][0] if seen else "Zyyy"


def resolve_scripts(codes: Iterable[str]) -> tuple[str, ...]:
    """Turn ISO 15924 codes or English names into Unicode scripts: ("Kore", "latin") -> ("Hang", "Hani", "Latn").

    Raises  LanguageError for a script that Unicode does not know, with the nearest one it does
    """
    resolved: dict[str, None] = {}
    for code in codes:
        resolved.update(dict.fromkeys(_resolve_script(code.strip())))
    return tuple(resolved)


def _resolve_script(code: str) -> tuple[str, ...]:
    from difflib import get_close_matches

    from fontTools.unicodedata import Scripts

    title = code.title()
    if title in WRITING_SYSTEMS:
        return WRITING_SYSTEMS[title]
    known = {name: long for name, long in Scripts.NAMES.items() if name not in NEUTRAL and name != UNASSIGNED}
    if title in known:
        return (title,)
    by_name = {long.lower(): name for name, long in known.items()} | {"han": "Hani", "chinese": "Hani"}
    spelled = code.lower().replace(" ", "_")
    if spelled in by_name:
        return (by_name[spelled],)
    near = get_close_matches(spelled, [*by_name, *(name.lower() for name in (*known, *WRITING_SYSTEMS))], n=1)
    hint = "scripts are four-letter ISO 15924 codes such as Latn, Cyrl, Arab, Hang, Hani"
    if near:
        hint = f"did you mean {by_name.get(near[0], near[0].title())}? {hint}"
    raise LanguageError(f"unknown script {code!r}", hint=hint)
