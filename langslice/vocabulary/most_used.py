"""The tokens that are used most, for an output head that proposes: what no text can do without, then the most frequent.

Unlike a vocabulary, such a set is not closed: a token that is proposed needs no other to be spelled by, and what is not in it is
written all the same, by the model that checks proposals.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from langslice.counting import TokenCounts
from langslice.errors import FewerRowsError, LanguageError, PlanError
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.always_kept import Mask, always_kept
from langslice.vocabulary.languages import parse_languages
from langslice.vocabulary.scripts import TokenScripts, token_scripts
from langslice.vocabulary.selection_criteria import Weights, by_value, has_criterion, language_criterion, value_of

_ENDS, _CLOSING = frozenset(".,!?;:…。、，．！？；："), frozenset("\"'”’)]»」』）")


def most_used(
    tokenizer: SourceTokenizer,
    size: int,
    *,
    languages: Sequence[str] = (),
    counts: TokenCounts | None = None,
    protected: Sequence[int] = (),
    released: Collection[int] = (),
    among: Mask | None = None,
) -> np.ndarray:
    """The ids of the most used tokens: (at most `size`,) int64, ascending.

    Frequencies are those of the word lists, in all forms that text gives words and in those of running text, for each language
    alike; counts weigh as much as all languages together. Special tokens, bytes, digits, white space, letters and signs come first.

    protected  ids that always stay
    released   special tokens that need not
    among      (tokens,) which may be taken; None for all
    Raises     FewerRowsError where `size` does not hold what always stays; LanguageError, PlanError
    """
    if not languages and counts is None:
        raise PlanError(
            "nothing says which tokens are used most",
            hint="name languages (--languages ko,en), or counts (--counts FILE)",
        )
    classes = token_scripts(tokenizer)
    always = always_kept(tokenizer, classes, protected=protected, released=released)
    always["punctuation"] = _signs(tokenizer, classes)
    first = np.logical_or.reduce(list(always.values()))
    allowed = np.ones(len(first), dtype=bool) if among is None else among
    first &= allowed
    if first.sum() > size:
        raise FewerRowsError(
            f"{size:,} tokens are too few: {int(first.sum()):,} always stay",
            hint="special tokens, bytes, digits, letters and signs are never left out",
            least=int(first.sum()),
        )
    values = _values(tokenizer, classes, languages, counts, allowed)
    order = by_value(values)
    order = order[(values[order] > 0) & ~first[order]][: size - int(first.sum())]
    return np.sort(np.concatenate([np.flatnonzero(first), order]))


def _signs(tokenizer: SourceTokenizer, classes: TokenScripts) -> Mask:
    """Single signs of no script, and pairs of one that ends a sentence, or a part of one, and a closing quote: (tokens,)."""
    found = np.zeros(len(tokenizer.tokens), dtype=bool)
    for token in np.flatnonzero(classes.neutral & (classes.characters <= 2)).tolist():
        text = tokenizer.surface(token).decode("utf-8", "replace").strip()
        if len(text) == 1:
            found[token] = (
                unicodedata.category(text)[0] in "PS" if text.isascii() else unicodedata.category(text)[0] == "P"
            )
        elif len(text) == 2:
            found[token] = any(pair[0] in _ENDS and pair[1] in _CLOSING for pair in (text, text[::-1]))
    return found


def _values(
    tokenizer: SourceTokenizer,
    classes: TokenScripts,
    languages: Sequence[str],
    counts: TokenCounts | None,
    allowed: Mask,
) -> Weights:
    """How often each token is used: (tokens,), of any unit."""
    criteria = []
    for language in parse_languages(languages):
        if counts is None and not has_criterion(language):
            raise LanguageError(
                f"there is no lexicon for {language.name} ({language.tag}), and no counts were given",
                hint="count text of it with `langslice count`, and add --counts FILE",
            )
        found = language_criterion(tokenizer, classes, language, running=True)
        criteria += [found, replace(found, weights=found.occurrences)]
    # Running text says how frequent words are; their forms say which tokens begin lines, follow brackets, continue words.
    values = value_of([(one, ((one.weights > 0) | one.whole) & allowed) for one in criteria])
    if counts is None:
        return values
    counted = np.where(allowed, counts.counts, 0.0)
    shares = [each / each.sum() for each in (values, counted) if each.sum() > 0]
    return np.sum(shares, axis=0) if shares else counted
