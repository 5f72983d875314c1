"""Which script, and which kind, every token of a vocabulary belongs to.

A character that is everyone's never forbids a token; a piece of a character counts as every script that it can belong
to. What to keep is decided in vocabulary.py.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.source import remembered
from langslice.vocabulary.pieces import scripts_of_piece, split_bytes
from langslice.vocabulary.unicode_scripts import (
    ScriptTable,
    resolve_scripts,
    script_of_text,
    script_table,
    scripts_of_character,
)

__all__ = [
    "ScriptTable",
    "TokenScripts",
    "resolve_scripts",
    "script_of_text",
    "script_table",
    "scripts_of_character",
    "token_scripts",
]

_LETTER, _DIGIT, _PUNCTUATION, _SYMBOL, _SPACE, _OTHER = 1, 2, 4, 8, 16, 32
_CATEGORY_BITS: Final = {
    "L": _LETTER,
    "M": _LETTER,
    "N": _DIGIT,
    "P": _PUNCTUATION,
    "S": _SYMBOL,
    "Z": _SPACE,
    "C": _OTHER,
}


@dataclass(frozen=True, eq=False)
class TokenScripts:
    """Kind and scripts of every token of a vocabulary.

    kinds       (size,) kind names: "special", "byte", "fragment", "whitespace", "digits", "punctuation", "symbol",
                "letters:<Script>", "mixed", and "none" for an id without a token
    characters  (size,) int32, characters of the surface without one leading space; 0 for bytes and fragments
    neutral     (size,) bool, true where no character belongs to a script of its own
    ascii_only  (size,) bool, true where every character is ASCII
    """

    kinds: tuple[str, ...]
    characters: np.ndarray[Any, np.dtype[np.int32]]
    neutral: np.ndarray[Any, np.dtype[np.bool_]]
    ascii_only: np.ndarray[Any, np.dtype[np.bool_]]
    _offsets: np.ndarray[Any, np.dtype[np.int64]]  # (size + 1,) start of each token among the elements
    _elements: np.ndarray[Any, np.dtype[np.int64]]  # one entry a character or piece of one: index into _unique
    _unique: np.ndarray[Any, np.dtype[np.int64]]  # the distinct elements: code points, negative keys of pieces
    _group_of: np.ndarray[Any, np.dtype[np.int64]]  # index into _groups of each distinct element
    _groups: tuple[frozenset[frozenset[str]], ...]  # what elements can be: distinct sets of script sets
    _dominant: tuple[str, ...]  # script shown for each token

    @cached_property
    def kind_array(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        """`kinds` as an array (size,)."""
        return np.array(self.kinds)

    def within(self, scripts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens whose every character can only belong to these scripts, or to everyone (size,)."""
        wanted = frozenset(scripts)
        fits = self._each_group(lambda group: all(not one or not one.isdisjoint(wanted) for one in group))
        return self._reduce(fits, every=True)

    def touching(self, scripts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens with a character that can belong to no other script than these (size,).

        A character that one of these shares with another script, and a piece that could also be of another, do not
        count.
        """
        wanted = frozenset(scripts)
        fits = self._each_group(lambda group: all(bool(one) and one <= wanted for one in group))
        return self._reduce(fits, every=False)

    def sharing(self, scripts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens with a character that one of these scripts shares with some others, as vowel marks (size,)."""
        wanted = frozenset(scripts)
        fits = self._each_group(lambda group: all(len(one) > 1 and not one.isdisjoint(wanted) for one in group))
        return self._reduce(fits, every=False)

    def han_in(self, codec: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens whose Han characters all are in a national character set, such as "gb2312" (size,)."""
        han = frozenset({frozenset({"Hani"})})
        fits = [
            group != han or (element >= 0 and _encodes(chr(element), codec))
            for element, group in zip(self._unique.tolist(), map(self._groups.__getitem__, self._group_of), strict=True)
        ]
        return self._reduce(np.asarray(fits, dtype=bool), every=True)

    @property
    def shown(self) -> tuple[str, ...]:
        """(size,) script of each token as it is shown to people; a kind where it has none."""
        return self._dominant

    def by_script(self) -> Counter[str]:
        """Tokens by script; tokens without one by kind ("special", "punctuation", ...), fragments by their script."""
        return Counter(self._dominant)

    def by_kind(self) -> Counter[str]:
        """Tokens by kind, all letters together."""
        return Counter(kind.split(":", 1)[0] for kind in self.kinds)

    def _each_group(self, fits: Callable[[frozenset[frozenset[str]]], bool]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """What is so of each distinct element: asked once of all elements that can be the same scripts."""
        answers = np.array([fits(group) for group in self._groups], dtype=bool)
        return np.asarray(answers[self._group_of], dtype=bool)

    def _reduce(
        self, per_group: np.ndarray[Any, np.dtype[np.bool_]], *, every: bool
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        lengths = np.diff(self._offsets)
        hits = np.concatenate([[0], np.cumsum(per_group[self._elements] if len(self._elements) else [])])
        found = hits[self._offsets[1:]] - hits[self._offsets[:-1]]
        return np.asarray((found == lengths) & (lengths > 0) if every else found > 0, dtype=bool)


@remembered
def token_scripts(tokenizer: SourceTokenizer) -> TokenScripts:
    """Classify every token of a tokenizer by kind and script; about a second for 262,144 tokens."""
    surfaces = _surfaces(tokenizer)
    elements, lengths, whole = _split(surfaces)
    unique, inverse = np.unique(elements, return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    groups = _groups_of(unique)
    bits = _bits_of(unique)[inverse]
    merged = _or_by_token(bits, offsets)
    singles = _single_script(groups)[inverse]
    script = _common_script(singles, offsets)
    names = script_table().names
    leading = _leading_space(elements, offsets)
    dominant = [names[code] if code >= 0 else ("Zyyy" if code == -1 else "several") for code in script]
    kinds = _kinds(tokenizer, merged, dominant, whole, lengths)
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    ascii_element = (unique >= 0) & (unique < 128)
    ascii_only = _or_by_token((~ascii_element).astype(np.uint8)[inverse], offsets) == 0
    return TokenScripts(
        kinds=tuple(kinds),
        characters=np.where(whole, lengths - leading, 0).astype(np.int32),
        neutral=(script == -1) & (lengths > 0),
        ascii_only=ascii_only & (lengths > 0),
        _offsets=offsets,
        _elements=inverse.astype(np.int64),
        _unique=unique,
        _group_of=np.array([number[group] for group in groups], dtype=np.int64),
        _groups=tuple(number),
        _dominant=tuple(_shown(kinds, dominant)),
    )


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _surfaces(tokenizer: SourceTokenizer) -> list[bytes]:
    """Bytes of each ordinary token; special, byte and missing ones are left empty."""
    skip = tokenizer.special_ids | tokenizer.byte_ids
    if tokenizer.unknown_id is not None:
        skip = skip | {tokenizer.unknown_id}
    surface = tokenizer.surface
    return [b"" if token is None or index in skip else surface(index) for index, token in enumerate(tokenizer.tokens)]


def _split(
    surfaces: Sequence[bytes],
) -> tuple[
    np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.bool_]]
]:
    """Elements of all tokens in sequence: code points, and for pieces of characters their negative key."""
    texts: list[str] = []
    broken: dict[int, list[int]] = {}
    for index, surface in enumerate(surfaces):
        try:
            texts.append(surface.decode())
        except UnicodeDecodeError:
            texts.append("")
            broken[index] = list(split_bytes(surface))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    if broken:
        starts = np.concatenate([[0], np.cumsum(lengths)])
        spots = np.repeat(starts[list(broken)], [len(pieces) for pieces in broken.values()])
        points = np.insert(points, spots, [key for pieces in broken.values() for key in pieces])
        lengths[list(broken)] = [len(pieces) for pieces in broken.values()]
    whole = np.ones(len(texts), dtype=bool)
    whole[list(broken)] = False
    return points, lengths, whole


def _groups_of(unique: np.ndarray[Any, np.dtype[np.int64]]) -> list[frozenset[frozenset[str]]]:
    return [
        frozenset({scripts_of_character(chr(element))}) if element >= 0 else scripts_of_piece(-element)
        for element in unique.tolist()
    ]


def _bits_of(unique: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What sort of character each element is, as one bit; control characters that are white space count as that."""
    bits = []
    for element in unique.tolist():
        if element < 0:
            bits.append(0)
            continue
        character = chr(element)
        bits.append(_SPACE if character.isspace() else _CATEGORY_BITS[unicodedata.category(character)[0]])
    return np.asarray(bits, dtype=np.uint8)


def _or_by_token(
    values: np.ndarray[Any, np.dtype[np.uint8]], offsets: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bitwise or over the elements of each token; 0 for a token without any."""
    merged = np.zeros(len(offsets) - 1, dtype=np.uint8)
    filled = offsets[1:] > offsets[:-1]
    if filled.any():
        merged[filled] = np.bitwise_or.reduceat(values, offsets[:-1][filled])
    return merged


def _single_script(groups: Sequence[frozenset[frozenset[str]]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Script number of each element: -1 when it is everyone's or shared, -2 when it can be of several."""
    number = {name: index for index, name in enumerate(script_table().names)}
    codes = []
    for group in groups:
        own = frozenset().union(*group)
        if len(group) == 1:
            codes.append(number[next(iter(own))] if len(own) == 1 else -1)
        else:
            codes.append(-1 if not own else -2)
    return np.asarray(codes, dtype=np.int64)


def _common_script(
    singles: np.ndarray[Any, np.dtype[np.int64]], offsets: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Script number of each token: -1 when no element has one, -2 when they differ or are uncertain."""
    result = np.full(len(offsets) - 1, -1, dtype=np.int64)
    filled = offsets[1:] > offsets[:-1]
    if not filled.any():
        return result
    starts = offsets[:-1][filled]
    high = np.maximum.reduceat(singles, starts)
    low = np.minimum.reduceat(np.where(singles == -1, np.iinfo(np.int64).max, singles), starts)
    low = np.where(low == np.iinfo(np.int64).max, -1, low)
    result[filled] = np.where(low == high, high, -2)
    return result


def _leading_space(
    elements: np.ndarray[Any, np.dtype[np.int64]], offsets: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """One where a token of two or more characters begins with a space."""
    lead = np.zeros(len(offsets) - 1, dtype=np.int64)
    longer = offsets[1:] - offsets[:-1] > 1
    lead[longer] = elements[offsets[:-1][longer]] == 0x20
    return lead


def _kinds(
    tokenizer: SourceTokenizer,
    bits: np.ndarray[Any, np.dtype[np.uint8]],
    scripts: Sequence[str],
    whole: np.ndarray[Any, np.dtype[np.bool_]],
    lengths: np.ndarray[Any, np.dtype[np.int64]],
) -> list[str]:
    kinds = [
        _kind(bit, script) if size else "none"
        for bit, script, size in zip(bits.tolist(), scripts, lengths.tolist(), strict=True)
    ]
    for index in np.flatnonzero(~whole).tolist():
        kinds[index] = "fragment"
    for index in tokenizer.byte_ids:
        kinds[index] = "byte"
    for index in tokenizer.special_ids | ({tokenizer.unknown_id} if tokenizer.unknown_id is not None else set()):
        kinds[index] = "special"
    return kinds


def _kind(bits: int, script: str) -> str:
    if bits == _SPACE:
        return "whitespace"
    solid = bits & ~_SPACE
    if solid == _LETTER:
        return "mixed" if script == "several" else f"letters:{script}"
    named = {_DIGIT: "digits", _PUNCTUATION: "punctuation", _SYMBOL: "symbol", _PUNCTUATION | _SYMBOL: "punctuation"}
    if solid in named:
        return named[solid]
    return "symbol" if solid == _OTHER else "mixed"


def _shown(kinds: Sequence[str], scripts: Sequence[str]) -> Iterator[str]:
    for kind, script in zip(kinds, scripts, strict=True):
        if kind in ("special", "byte", "none"):
            yield kind
        elif script == "several":
            yield "fragment of several scripts" if kind == "fragment" else "several scripts"
        elif script == "Zyyy":
            yield kind if ":" not in kind else "Zyyy"
        else:
            yield script
