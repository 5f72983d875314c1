"""One view of every kind of tokenizer, and the three things a slice does with it: open, close, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from langslice.errors import TokenizerError
from langslice.files.hashing import file_sha256
from langslice.tokenizer.document import Document
from langslice.tokenizer.reserved import reserved_among
from langslice.tokenizer.rewrite import TOKENIZER_FILE, processor_ids
from langslice.tokenizer.settings import named_tokens
from langslice.tokenizer.slow_files import TEKKEN_FILE
from langslice.tokenizer.surface import byte_level_surface, piece_surface

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# Compared and hashed by identity, so that what is computed from a tokenizer can be remembered with it.
@dataclass(frozen=True, eq=False)
class SourceTokenizer:
    """A tokenizer as its files describe it.

    folder        folder that holds the files
    kind          "byte-bpe" | "spm-bpe" | "char-bpe" | "unigram" | "wordpiece" | "marian" | "m2m100" |
                  "characters"
    tokens        (size,) token strings by id as the files spell them; None where an id has no token
    special_ids   ids of special and added tokens (never split; kept, but for those of `reserved_ids` where that is asked)
    byte_ids      ids that stand for single bytes (byte-level alphabet or <0x00>..<0xFF>); empty where there are none
    unknown_id    id of the unknown token, None where text can never become unknown
    files         names of the tokenizer files that were understood, relative to `folder`
    encode        texts -> ids without special tokens around them; one list per text
    decode        ids -> text
    load_backend  makes `backend`; encode and decode load it on first use, opening and writing never do
    document      tokenizer.json in parts, None for marian, m2m100 and characters
    settings      content of tokenizer_config.json, special_tokens_map.json and added_tokens.json by name
    encode_target for marian: texts of the target language -> ids; elsewhere None
    notes         what a user should know: tokens that the model has no row for
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
    load_backend: Callable[[], Tokenizer] | None = None
    document: Document | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encode_target: Callable[[Sequence[str]], list[list[int]]] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def backend(self) -> Tokenizer | None:
        """The `tokenizers.Tokenizer` that `encode` uses, loaded on first use; None for marian, m2m100 and characters."""
        return self.load_backend() if self.load_backend else None

    @cached_property
    def content_key(self) -> str | None:
        """Digest of everything that decides how text is encoded; None where that is more than tokenizer.json and its settings."""
        if self.document is None or TOKENIZER_FILE not in self.files:
            return None
        parts = [self.kind, str(len(self.tokens)), *self.notes]
        parts += [f"{name} {file_sha256(self.folder / name)}" for name in self.files]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def forget(self) -> None:
        """Free what was worked out from the tokenizer, tens of megabytes for a large vocabulary; worked out again when needed."""
        self.__dict__.pop(_MEMORY, None)

    def release(self) -> None:
        """Free what `encode` loaded too, hundreds of megabytes for a large vocabulary; loaded again when it is needed."""
        self.forget()
        for name in ("backend", "sides"):  # `sides` holds the tokenizer itself, which would outlive its last user
            self.__dict__.pop(name, None)
        forget = getattr(self.load_backend, "cache_clear", None)
        if forget is not None:
            forget()

    @cached_property
    def reserved_ids(self) -> frozenset[int]:
        """Special and added tokens that nothing of the tokenizer needs: kept in reserve for later use (reserved.py).

        None where a tekken.json numbers its other tokens from after all of them.
        """
        if TEKKEN_FILE in self.files:
            return frozenset()
        reserved = reserved_among((old, self.tokens[old]) for old in self.special_ids)
        named = named_tokens(self.settings)
        used = {old for old in reserved if self.tokens[old] in named} | {self.unknown_id}
        if self.document is not None:
            skeleton = self.document.skeleton
            used |= processor_ids(skeleton.get("post_processor"), str(self.folder))
            used.add((skeleton.get("padding") or {}).get("pad_id"))
        return reserved - used

    @cached_property
    def sides(self) -> tuple[SourceTokenizer, ...]:
        """The tokenizer itself, and for Marian a second one that encodes as the target language is encoded."""
        return (
            (self,)
            if self.encode_target is None
            else (self, replace(self, encode=self.encode_target, encode_target=None))
        )

    def surface(self, token_id: int) -> bytes:
        """UTF-8 bytes that a token adds to text: byte-level decoded, word marker as a space, `##` removed."""
        token = self.tokens[token_id]
        if token is None:
            raise TokenizerError(f"{self.folder}: id {token_id} has no token")
        if token_id in self.special_ids and token_id not in self.byte_ids:
            return token.encode()
        return self.spelled(token)

    def spelled(self, token: str) -> bytes:
        """The same for any spelling of an ordinary token, whether the vocabulary has it or not."""
        model = self.document.skeleton["model"] if self.document else {}
        prefix = model.get("continuing_subword_prefix") or ""
        suffix = model.get("end_of_word_suffix") or ""
        if prefix and token.startswith(prefix) and token != prefix:
            token = token[len(prefix) :]
        ends = bool(suffix) and token.endswith(suffix) and token != suffix
        if ends:
            token = token[: -len(suffix)]
        if self.kind == "byte-bpe":
            spelled = byte_level_surface(token)
        else:
            spelled = token.encode() if self.kind in ("wordpiece", "characters") else piece_surface(token)
        return spelled + b" " if ends else spelled


Rest = ParamSpec("Rest")
Found = TypeVar("Found")
_MEMORY = "remembered"


def remembered(
    function: Callable[Concatenate[SourceTokenizer, Rest], Found],
) -> Callable[Concatenate[SourceTokenizer, Rest], Found]:
    """Let a function of a tokenizer, and of what can be hashed, keep what it found with the tokenizer, as long as that lives."""

    @wraps(function)
    def lookup(tokenizer: SourceTokenizer, /, *rest: Rest.args, **named: Rest.kwargs) -> Found:
        known: dict[Any, Any] = tokenizer.__dict__.setdefault(_MEMORY, {})
        key = (function, rest, tuple(sorted(named.items())))
        if key not in known:
            known[key] = function(tokenizer, *rest, **named)
        return known[key]  # type: ignore[no-any-return]

    return lookup


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
