"""One view of every kind of tokenizer, and the three things a slice does with it: open, close, write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SourceTokenizer:
    """A tokenizer as its files describe it.

    folder       folder that holds the files
    kind         "byte-bpe" | "spm-bpe" | "unigram" | "wordpiece" | "marian" | "characters"
    tokens       (size,) token strings by id as the files spell them; None where an id has no token
    special_ids  ids of special and added tokens (never split, always kept)
    byte_ids     ids that stand for single bytes (byte-level alphabet or <0x00>..<0xFF>); empty where there are none
    unknown_id   id of the unknown token, None where text can never become unknown
    files        names of the tokenizer files that were understood, relative to `folder`
    encode       texts -> ids without special tokens around them; one list per text
    decode       ids -> text
    backend      the `tokenizers.Tokenizer` behind `encode`, None for marian and characters
    """

    folder: Path
    kind: str
    tokens: tuple[str | None, ...]
    special_ids: frozenset[int]
    byte_ids: frozenset[int]
    unknown_id: int | None
    files: tuple[str, ...]
    encode: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[Sequence[int]], str]
    backend: Any = None

    def surface(self, token_id: int) -> bytes:
        """UTF-8 bytes that a token adds to text: byte-level decoded, word marker as a space, `##` removed."""
        raise NotImplementedError


@dataclass(frozen=True)
class Closure:
    """The tokens that a choice needs besides itself.

    kept    ascending ids: the choice and what it needs
    added   id -> reason, for the ids that were not in the choice
    """

    kept: tuple[int, ...]
    added: Mapping[int, str]


@dataclass(frozen=True)
class Rewrite:
    """What `write_tokenizer` did.

    written   file name -> sha256 of what was written
    left_out  file name -> reason why it is not in the output
    """

    written: Mapping[str, str]
    left_out: Mapping[str, str]


def open_tokenizer(folder: Path, *, model_type: str | None = None) -> SourceTokenizer:
    """Read the tokenizer of a model folder."""
    raise NotImplementedError


def close(source: SourceTokenizer, chosen: Collection[int]) -> Closure:
    """Add the tokens without which the chosen ones could not be produced, or text would be scored differently."""
    raise NotImplementedError


def write_tokenizer(source: SourceTokenizer, kept: Sequence[int], out: Path) -> Rewrite:
    """Write the tokenizer restricted to `kept` (ascending old ids; new id = position) and check what was written."""
    raise NotImplementedError
