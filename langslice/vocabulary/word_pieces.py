"""Words of a text as the pieces that a tokenizer spells them in: what new tokens are learned from.

A word ends where the tokenizer splits text before its model sees it, before white space, and at everything that is no letter: a
new token is of letters and marks alone, after one space at most. Vocabularies whose training kept digits, punctuation and words
apart say so nowhere in their files, and tokens that join them would break what the model learned of numbers and sentences.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice

from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.surface import byte_value
from langslice.vocabulary.new_merges import Word

_BATCH = 512
_MOST_WORDS = 2_000_000  # distinct ones; beyond, those that occurred once are forgotten
_JOINERS = "‌‍"  # of Indic and Persian spelling
_INSIDE, _OPENS, _APART, _BYTE = range(4)


@dataclass
class Words:
    """Words of a text.

    counts      word -> how often it occurs
    characters  symbol below zero -> spelling of a character that has no token, and its bytes
    tokens      tokens of the whole text
    units       lines or records of text
    """

    counts: Counter[Word] = field(default_factory=Counter)
    characters: dict[int, tuple[str, int]] = field(default_factory=dict)
    tokens: int = 0
    units: int = 0


def read_words(tokenizer: SourceTokenizer, units: Iterable[str]) -> Words:
    """Encode text and count the words in it, as symbols (see `new_merges`)."""
    found, spelled = Words(), Counter[Word]()
    class_of = cache(partial(_class_of, tokenizer))
    backend, waiting = tokenizer.backend, iter(units)
    while backend is not None and (batch := list(islice(waiting, _BATCH))):
        found.units += len(batch)
        for encoding in backend.encode_batch(batch, add_special_tokens=False):
            found.tokens += len(encoding.ids)
            spelled.update(_split(encoding.ids, encoding.word_ids, class_of))
        if len(spelled) > _MOST_WORDS:
            spelled = Counter({word: count for word, count in spelled.items() if count > 1})
    symbols = Symbols(tokenizer, found.characters)
    for word, count in spelled.items():
        for part in symbols.of(word):
            found.counts[part] += count
    return found


@dataclass
class Symbols:
    """Numbers for the characters that a tokenizer spells in bytes.

    characters  as in `Words`; filled as characters are met
    """

    tokenizer: SourceTokenizer
    characters: dict[int, tuple[str, int]]
    _numbers: dict[str, int] = field(default_factory=dict)

    def of(self, word: Word, *, any_character: bool = False) -> Iterator[Word]:
        """A word with one symbol for each of its characters in bytes; in parts where such a character is no letter.

        any_character  take those that are no letters as well
        """
        part: list[int] = []
        at = 0
        while at < len(word):
            size = 0 if self._byte(word[at]) is None else self._length(word, at)
            if size == 0:
                part.append(word[at])
            else:
                values = [self._byte(symbol) or 0 for symbol in word[at : at + size]]
                character = bytes(values).decode("utf-8", "replace")
                if any_character or is_word(character):
                    part.append(self._number(character, size))
                else:
                    yield tuple(part)
                    part = []
            at += max(size, 1)
        yield tuple(part)

    def _byte(self, symbol: int) -> int | None:
        if self.tokenizer.kind == "byte-bpe" or symbol not in self.tokenizer.byte_ids:
            return None
        return byte_value(self.tokenizer.tokens[symbol] or "")

    def _length(self, word: Word, at: int) -> int:
        """Bytes of the character that begins here; 1 for a byte that begins none."""
        lead = self._byte(word[at]) or 0
        size = 1 + (lead >= 0xC2) + (lead >= 0xE0) + (lead >= 0xF0)
        following = [self._byte(symbol) for symbol in word[at + 1 : at + size]]
        whole = len(following) == size - 1 and all(value is not None and value & 0xC0 == 0x80 for value in following)
        return size if whole else 1

    def _number(self, character: str, size: int) -> int:
        if character not in self._numbers:
            self._numbers[character] = -1 - len(self._numbers)
            self.characters[self._numbers[character]] = (character, size)
        return self._numbers[character]


def _split(ids: list[int], places: list[int | None], class_of: Callable[[int], int]) -> Iterator[Word]:
    """Words of one text: two pieces or more, or one that a byte begins."""
    word: list[int] = []
    last: int | None = None
    for token_id, place in zip(ids, places, strict=True):
        kind = class_of(token_id)
        if kind in (_OPENS, _APART) or place != last:
            if len(word) > 1:
                yield tuple(word)
            word = []
        last = place
        if kind != _APART:
            word.append(token_id)
    if len(word) > 1:
        yield tuple(word)


def _class_of(tokenizer: SourceTokenizer, token_id: int) -> int:
    """Whether a token can be inside a word, or opens one, or stands apart from all words."""
    token = tokenizer.tokens[token_id]
    if token is None or token_id == tokenizer.unknown_id:
        return _APART
    if token_id in tokenizer.byte_ids and tokenizer.kind != "byte-bpe":
        return _BYTE
    if token_id in tokenizer.special_ids and token_id not in tokenizer.byte_ids:
        return _APART
    surface = tokenizer.spelled(token)
    rest = surface.removeprefix(b" ").removesuffix(b" ")
    # Of a piece of a character nobody knows yet what it will be; a new token is looked at again.
    if not all(map(is_letter, rest.decode("utf-8", "ignore"))):
        return _APART
    return _OPENS if surface.startswith(b" ") else _INSIDE


def is_letter(character: str) -> bool:
    """Whether a character is a letter or a mark of one."""
    return unicodedata.category(character)[0] in "LM" or character in _JOINERS


def is_word(text: str) -> bool:
    """Whether a text is letters alone."""
    return bool(text) and all(map(is_letter, text))


def may_be_token(surface: bytes) -> bool:
    """Whether a new token may stand for these bytes: letters after one space at most, or the beginning of one letter.

    Example  " ሰላም" and the first two bytes of "ሰ" may, "19" and "a, b" may not
    """
    rest = surface.removeprefix(b" ").removesuffix(b" ")
    try:
        return is_word(rest.decode())
    except UnicodeDecodeError:
        size = 1 + (rest[0] >= 0xC2) + (rest[0] >= 0xE0) + (rest[0] >= 0xF0)
        return len(rest) < size and all(byte & 0xC0 == 0x80 for byte in rest[1:])
