"""The tokens that are used most, for an output head that proposes: what no text can do without, then the most frequent.

Unlike a vocabulary, such a set is not closed: a token that is proposed needs no other to be spelled by, and what is not in it is
written all the same, by the model that checks proposals.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from langslice.counting import TokenCounts
from langslice.errors import FewerRowsError, LanguageError, PlanError
from langslice.tokenizer import SourceTokenizer
from langslice.vocabulary.always_kept import Mask, always_kept
from langslice.vocabulary.languages import parse_languages
from langslice.vocabulary.scripts import token_scripts
from langslice.vocabulary.selection_criteria import (
    SelectionCriterion,
    by_value,
    has_criterion,
    language_criterion,
    value_of,
)

# Of ASCII signs: longer runs are source code, and counted like words.
_SIGNS = 1


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

    Frequencies are those of running text by the word lists of the languages, and the counts; each language, and the counts, adds up
    to one. Special tokens, bytes, digits, white space, letters and single signs come first.

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
    always["punctuation"] &= classes.characters <= _SIGNS
    first = np.logical_or.reduce(list(always.values()))
    allowed = np.ones(len(first), dtype=bool) if among is None else among
    first &= allowed
    if first.sum() > size:
        raise FewerRowsError(
            f"{size:,} tokens are too few: {int(first.sum()):,} always stay",
            hint="special tokens, bytes, digits, letters and single signs are never left out",
            least=int(first.sum()),
        )
    criteria = _criteria(tokenizer, languages, counts)
    values = value_of([(one, ((one.weights > 0) | one.whole) & allowed) for one in criteria])
    order = by_value(values)
    order = order[(values[order] > 0) & ~first[order]][: size - int(first.sum())]
    return np.sort(np.concatenate([np.flatnonzero(first), order]))


def _criteria(
    tokenizer: SourceTokenizer, languages: Sequence[str], counts: TokenCounts | None
) -> list[SelectionCriterion]:
    classes = token_scripts(tokenizer)
    criteria = []
    for language in parse_languages(languages):
        if counts is None and not has_criterion(language):
            raise LanguageError(
                f"there is no lexicon for {language.name} ({language.tag}), and no counts were given",
                hint="count text of it with `langslice count`, and add --counts FILE",
            )
        found = language_criterion(tokenizer, classes, language, running=True)
        criteria.append(replace(found, weights=found.occurrences))
    if counts is not None:
        none = np.zeros(len(tokenizer.tokens), dtype=bool)
        criteria.append(SelectionCriterion("corpus", np.asarray(counts.counts, dtype=np.float64), none))
    return criteria
