"""What encoding words and fixed texts gives, kept in the user's cache: it is the same for every job with the same tokenizer.

The key is everything that decides the result: the tokenizer's files, the language, the text of the modules that make the
words, and the versions of the libraries that they rest on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from langslice.files.user_cache import cached, code_digest
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary import languages, lexicon, unicode_scripts
from langslice.vocabulary.languages import Language

Weights = np.ndarray[Any, np.dtype[np.float64]]
_LIBRARIES = ("wordfreq", "langcodes", "fonttools", "tokenizers")


@cache
def _versions() -> tuple[str, ...]:
    modules = [str(module.__file__) for module in (lexicon, languages, unicode_scripts)]
    return (code_digest(*modules, __file__), unicodedata.unidata_version, *map(version, _LIBRARIES))


def kept_weights(tokenizer: SourceTokenizer, language: Language, what: str, make: Callable[[], Weights]) -> Weights:
    """The weights of a language's tokens, (size,), from the cache where they were worked out before.

    what  of them, in a word
    """
    key = tokenizer.content_key
    if key is None:
        return make()

    def packed() -> bytes:
        weights = make()
        ids = np.flatnonzero(weights)
        return ids.astype("<i4").tobytes() + weights[ids].astype("<f8").tobytes()

    found = cached("words", [key, repr(language), what, *_versions()], packed)
    count = len(found) // 12
    weights = np.zeros(len(tokenizer.tokens), dtype=np.float64)
    weights[np.frombuffer(found, dtype="<i4", count=count)] = np.frombuffer(found, dtype="<f8", offset=4 * count)
    return weights


def kept_tokens(tokenizer: SourceTokenizer, texts: Iterable[str]) -> set[int]:
    """Tokens of texts, from the cache where they were encoded before."""
    spelled = list(texts)

    def encoded() -> bytes:
        ids = {index for side in tokenizer.sides for ids in side.encode(spelled) for index in ids}
        return np.array(sorted(ids), dtype="<i4").tobytes()

    key = tokenizer.content_key
    found = encoded() if key is None else cached("texts", [key, *_versions(), *spelled], encoded)
    return set(np.frombuffer(found, dtype="<i4").tolist())
