"""Which script, and which kind, every token of a vocabulary belongs to.

Scripts are ISO 15924 codes from the Unicode character database, as fontTools carries it (Scripts.txt and
ScriptExtensions.txt; Unicode Standard Annex 24). A character that several scripts share but that is not everyone's,
such as the ideographic full stop, belongs to the scripts of its extension; one that is everyone's belongs to none and
never forbids a token.

Byte-level vocabularies hold pieces of characters. What scripts such a piece can belong to is looked up among all
assigned characters, never guessed from a lead byte: 0xEA alone begins Hangul, Yi and Vai.

What to keep is decided in vocabulary.py.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from langslice.errors import LanguageError
from langslice.tokenizer import SourceTokenizer

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


def scripts_of_text(text: str) -> frozenset[str]:
    """Every script that a text holds a character of; everyone's characters do not count."""
    return frozenset().union(*map(scripts_of_character, set(text))) - {UNASSIGNED}


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


@dataclass(frozen=True)
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
    _elements: np.ndarray[Any, np.dtype[np.int64]]  # one entry a character or piece of one: index into _groups
    _unique: np.ndarray[Any, np.dtype[np.int64]]  # the distinct elements: code points, negative keys of pieces
    _groups: tuple[frozenset[frozenset[str]], ...]  # what each distinct element can be: a set of script sets
    _dominant: tuple[str, ...]  # script shown for each token

    def within(self, scripts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens whose every character can only belong to these scripts, or to everyone (size,)."""
        wanted = frozenset(scripts)
        fits = [all(not one or not one.isdisjoint(wanted) for one in group) for group in self._groups]
        return self._reduce(np.asarray(fits, dtype=bool), every=True)

    def touching(self, scripts: Iterable[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens with a character that can belong to no other script than these (size,).

        A character that one of these shares with another script, and a piece that could also be of another, do not
        count.
        """
        wanted = frozenset(scripts)
        fits = [all(one and one <= wanted for one in group) for group in self._groups]
        return self._reduce(np.asarray(fits, dtype=bool), every=False)

    def han_in(self, codec: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark tokens whose Han characters all stand in a national character set, such as "gb2312" (size,)."""
        han = frozenset({frozenset({"Hani"})})
        fits = [
            group != han or (element >= 0 and _encodes(chr(element), codec))
            for element, group in zip(self._unique.tolist(), self._groups, strict=True)
        ]
        return self._reduce(np.asarray(fits, dtype=bool), every=True)

    def by_script(self) -> Counter[str]:
        """Tokens by script; tokens without one by kind ("special", "punctuation", ...), fragments by their script."""
        return Counter(self._dominant)

    def by_kind(self) -> Counter[str]:
        """Tokens by kind, all letters together."""
        return Counter(kind.split(":", 1)[0] for kind in self.kinds)

    def _reduce(
        self, per_group: np.ndarray[Any, np.dtype[np.bool_]], *, every: bool
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        lengths = np.diff(self._offsets)
        hits = np.concatenate([[0], np.cumsum(per_group[self._elements] if len(self._elements) else [])])
        found = hits[self._offsets[1:]] - hits[self._offsets[:-1]]
        return np.asarray((found == lengths) & (lengths > 0) if every else found > 0, dtype=bool)


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
        _groups=tuple(groups),
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
    return [
        b"" if token is None or index in skip else surface(index) for index, token in enumerate(tokenizer.tokens)
    ]


def _split(
    surfaces: Sequence[bytes],
) -> tuple[
    np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.bool_]]
]:
    """Elements of all tokens in a row: code points, and for pieces of characters their negative key."""
    texts: list[str] = []
    broken: dict[int, list[int]] = {}
    for index, surface in enumerate(surfaces):
        try:
            texts.append(surface.decode())
        except UnicodeDecodeError:
            texts.append("")
            broken[index] = list(_pieces(surface))
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


def _pieces(surface: bytes) -> Iterator[int]:
    """Code points of the whole characters in damaged UTF-8 and negative keys of the pieces around them."""
    position = 0
    while position < len(surface):
        size = _sequence_length(surface[position])
        chunk = surface[position : position + size]
        try:
            yield ord(chunk.decode())
            position += size
        except (UnicodeDecodeError, TypeError):
            end = position + 1
            while end < len(surface) and 0x80 <= surface[end] < 0xC0:
                end += 1
            yield -_key(surface[position:end])
            position = end


def _sequence_length(lead: int) -> int:
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _key(piece: bytes) -> int:
    """A number for up to six bytes that tells b"\\x00" from b"": a leading 1 before the bytes."""
    return int.from_bytes(b"\x01" + piece[:6], "big")


@lru_cache(maxsize=1)
def _piece_table() -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]], list[int]]:
    """Every proper piece of every assigned character: (sorted keys, element class of each, example code point)."""
    table = script_table()
    unassigned = table.names.index(UNASSIGNED)
    points = np.flatnonzero(table.codes != unassigned)
    points = points[(points >= 0x80) & ((points < 0xD800) | (points > 0xDFFF))]
    class_of, examples = _classes(points)
    keys = []
    owners = []
    for low, high, size in ((0x80, 0x800, 2), (0x800, 0x10000, 3), (0x10000, CODE_POINTS, 4)):
        chosen = (points >= low) & (points < high)
        encoded = _utf8(points[chosen], size)
        for start in range(size):
            for end in range(start + 1, size + 1):
                if end - start < size:
                    key = np.ones(encoded.shape[0], dtype=np.int64)
                    for column in range(start, end):
                        key = (key << 8) | encoded[:, column]
                    keys.append(key)
                    owners.append(class_of[chosen])
    pairs = np.unique((np.concatenate(keys) << 12) | np.concatenate(owners))
    return pairs >> 12, pairs & 0xFFF, examples


def _classes(
    points: np.ndarray[Any, np.dtype[np.int64]],
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[int]]:
    """Number the distinct script sets of these code points; an example code point for each."""
    table = script_table()
    class_of = table.codes[points].astype(np.int64)
    examples: dict[int, int] = {}
    numbers: dict[tuple[int, frozenset[str]], int] = {}
    neutral = [table.names.index(name) for name in sorted(NEUTRAL)]
    for spot in np.flatnonzero(np.isin(class_of, neutral)):
        extension = table.extensions.get(int(points[spot]), frozenset())
        if extension:
            class_of[spot] = numbers.setdefault((0, extension), len(table.names) + len(numbers))
    for number, spot in zip(*np.unique(class_of, return_index=True), strict=True):
        examples[int(number)] = int(points[spot])
    return class_of, [examples.get(number, -1) for number in range(max(examples) + 1)]


def _utf8(points: np.ndarray[Any, np.dtype[np.int64]], size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """UTF-8 bytes of code points that take `size` bytes: (n, size)."""
    lead = {2: 0xC0, 3: 0xE0, 4: 0xF0}[size]
    columns = [lead | (points >> (6 * (size - 1)))]
    columns += [0x80 | ((points >> (6 * rest)) & 0x3F) for rest in range(size - 2, -1, -1)]
    return np.stack(columns, axis=1)


def _scripts_of_piece(key: int) -> frozenset[frozenset[str]]:
    """Script sets that the character behind a piece can have; {"Zzzz"} when no assigned character holds it."""
    keys, classes, examples = _piece_table()
    low, high = np.searchsorted(keys, [key, key + 1])
    found = {scripts_of_character(chr(examples[number])) for number in classes[low:high]}
    return frozenset(found) if found else frozenset({frozenset({UNASSIGNED})})


def _groups_of(unique: np.ndarray[Any, np.dtype[np.int64]]) -> list[frozenset[frozenset[str]]]:
    return [
        frozenset({scripts_of_character(chr(element))}) if element >= 0 else _scripts_of_piece(-element)
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
