"""Selection criteria: weights that say how often each token is needed, and the limits that a user can put on them.

A criterion is a language, a lexicon, the corpus, a script, or code. Each is limited by itself, so that a language
with much text does not push out one with little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.source import remembered
from langslice.vocabulary.kept_results import kept_weights
from langslice.vocabulary.languages import Language
from langslice.vocabulary.lexicon import forms_for, language_words, running_text, weigh_words
from langslice.vocabulary.scripts import TokenScripts

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Weights = np.ndarray[Any, np.dtype[np.float64]]

# Scripts that vocabularies hold for one language, or for one language and its small relatives: every token of such a
# script speaks for the language. Japanese words run together in ways that no list of words shows, Korean ones carry
# endings, and Thai, Khmer, Lao, Burmese and Tibetan have no spaces.
WHOLE_SCRIPTS: Final = frozenset(
    {
        "Hang",
        "Hira",
        "Kana",
        "Bopo",
        "Thai",
        "Laoo",
        "Khmr",
        "Mymr",
        "Tibt",
        "Grek",
        "Hebr",
        "Armn",
        "Geor",
        "Taml",
        "Telu",
        "Knda",
        "Mlym",
        "Sinh",
        "Gujr",
        "Guru",
        "Orya",
        "Ethi",
        "Thaa",
        "Syrc",
        "Mong",
        "Olck",
        "Cher",
        "Cans",
        "Tfng",
        "Nkoo",
        "Adlm",
        "Vaii",
        "Yiii",
        "Java",
        "Bali",
        "Sund",
        "Copt",
        "Goth",
    }
)
# Chinese and Japanese Han tokens likewise, as far as the characters are in the national set; Korean uses few.
HAN_SETS: Final = frozenset({"gb2312", "big5hkscs", "gb18030", "shift_jis"})


@dataclass(frozen=True)
class SelectionCriterion:
    """Why tokens should be kept.

    reason   what is recorded with each token ("language:ko", "corpus")
    weights  (size,) float64, occurrences in any unit; 0 where there are none
    whole    (size,) bool, tokens that count without a weight
    running  (size,) float64, occurrences in running text, where the weights are not these; None where they are
    """

    reason: str
    weights: Weights
    whole: Mask
    running: Weights | None = None

    @property
    def occurrences(self) -> Weights:
        """What coverage is a share of: (size,)."""
        return self.weights if self.running is None else self.running


@remembered
def language_criterion(
    tokenizer: SourceTokenizer,
    classes: TokenScripts,
    language: Language,
    *,
    use_whole: bool = True,
    running: bool = False,
) -> SelectionCriterion:
    """Tokens for a language: its lexicon in all forms, and every token of the scripts that are its own.

    use_whole  take all tokens of the language's own scripts, as wanted when no corpus says which of them occur
    running    say also what running text would hold, which a share of occurrences is of
    """
    weights = np.zeros(len(tokenizer.tokens), dtype=np.float64)
    occurrences = None
    if language.lexicon:
        forms = forms_for(tokenizer, language.tag)
        weights = kept_weights(
            tokenizer, language, "lexicon",
            lambda: weigh_words(tokenizer, language_words(language), forms, code=language.tag),
        )  # fmt: skip
        if running:
            occurrences = kept_weights(tokenizer, language, "running text", lambda: running_text(tokenizer, language))
    for each in (weights, occurrences):
        if each is not None:
            each[classes.neutral & classes.ascii_only] = 0.0
    whole = whole_script_tokens(classes, language) if use_whole else np.zeros(len(weights), dtype=bool)
    return SelectionCriterion(f"language:{language.tag}", weights, whole, occurrences)


def whole_script_tokens(classes: TokenScripts, language: Language) -> Mask:
    """Tokens that can only be this language's by their script: all Hangul for Korean, all GB 2312 Han for Chinese.

    With them the few with a mark that the script shares, such as Arabic vowel signs: lexicons leave those out.
    Returns  (size,) bool
    """
    own = WHOLE_SCRIPTS & set(language.scripts)
    whole = classes.touching(own) & classes.within(language.scripts)
    marks = set(language.scripts) - {"Latn", "Cyrl"}
    whole |= classes.sharing(marks) & classes.within(language.scripts)
    if language.han in HAN_SETS:
        whole |= classes.touching({"Hani"}) & classes.within({*language.scripts, "Bopo"}) & classes.han_in(language.han)
    return np.asarray(whole, dtype=bool)


def has_criterion(language: Language) -> bool:
    """Whether a language can be sliced for without a corpus: by its lexicon, or by a script of its own."""
    return language.lexicon or bool(WHOLE_SCRIPTS & set(language.scripts)) or language.han in HAN_SETS


def select(
    criterion: SelectionCriterion, *, coverage: float | None = None, min_weight: float = 0.0, top_k: int | None = None
) -> Mask:
    """Tokens that a criterion keeps: (size,) bool.

    coverage    keep the most frequent tokens until they make up this share of the occurrences in running text
    min_weight  least weight of a kept token
    top_k       most tokens kept by weight
    Tokens of `whole` stay; under a coverage those alone that have no weight to be selected by.

    Weights 6, 3, 1 and coverage 0.9 keep the first two.
    """
    order = by_value(criterion.weights)
    order = order[criterion.weights[order] > 0]
    if coverage is not None and len(order):
        occurrences = criterion.occurrences[order]
        share = np.cumsum(occurrences) / occurrences.sum()
        order = order[: int(np.searchsorted(share, coverage - 1e-12)) + 1]
    if top_k is not None:
        order = order[:top_k]
    mask = criterion.whole & (criterion.weights == 0) if coverage is not None else criterion.whole.copy()
    mask[order[criterion.weights[order] >= min_weight]] = True
    return mask


def by_value(values: Weights) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Ids from the most to the least valuable; equal ones in id order, which follows frequency in most vocabularies.

    values   (size,) float64
    Returns  (size,) int64
    """
    return np.argsort(-values, kind="stable")


def value_of(pieces: list[tuple[SelectionCriterion, Mask]]) -> Weights:
    """Value of each token over all criteria, each adding up to one: (size,) float64.

    A token without a weight counts as the median of those of its criterion that have one.
    """
    total = np.zeros_like(pieces[0][0].weights) if pieces else np.zeros(0, dtype=np.float64)
    for criterion, mask in pieces:
        weights = np.where(mask, criterion.weights, 0.0)
        positive = weights[weights > 0]
        weights[mask & (weights == 0)] = np.median(positive) if len(positive) else 1.0
        if weights.any():
            total += weights / weights.sum()
    return total
