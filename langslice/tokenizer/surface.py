"""The bytes that a token adds to a text, for every kind of tokenizer."""

from __future__ import annotations

import re
from functools import cache

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet, character -> byte: printable Latin-1 stands for itself, the other bytes follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def byte_value(token: str) -> int | None:
    """The byte that a byte-fallback token such as <0x0A> stands for, else None."""
    found = _BYTE_TOKEN.match(token) if token.startswith("<0x") else None
    return int(found.group(1), 16) if found else None


@cache
def _to_bytes() -> dict[int, str]:
    """The alphabet for `str.translate`; characters that are no part of it become one that no byte stands for."""
    others = dict.fromkeys(range(256), "\uffff")
    return {**others, **{ord(character): chr(byte) for character, byte in byte_alphabet().items()}}


def byte_level_surface(token: str) -> bytes:
    """Bytes of a token in GPT-2's alphabet; a token with a character outside of it stands for itself."""
    try:
        return token.translate(_to_bytes()).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode()


def piece_surface(token: str) -> bytes:
    """Bytes of a SentencePiece piece: U+2581 is a space, <0x0A> a byte."""
    value = byte_value(token)
    return token.replace("▁", " ").encode() if value is None else bytes([value])
