"""Which tokens to keep, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langslice.counting import TokenCounts
from langslice.tokenizer import SourceTokenizer


@dataclass(frozen=True)
class VocabularyRequest:
    """What the user asked for; every field combines with the others.

    languages     BCP-47 codes
    lexicons      files of words, one a line, optionally `word<TAB>weight`
    scripts       ISO 15924 codes whose tokens are kept
    drop_scripts  ISO 15924 codes whose tokens are dropped, whatever the evidence
    coverage      share of the weighted token occurrences to cover, 0 < coverage <= 1
    min_count     least corpus count of a token kept for the corpus
    max_vocab     most tokens in the result, closure included
    top_k         most tokens taken from each piece of evidence
    keep_tokens   files of tokens, one a line
    keep_code     keep indentation, operators and identifiers
    """

    languages: tuple[str, ...] = ()
    lexicons: tuple[Path, ...] = ()
    scripts: tuple[str, ...] = ()
    drop_scripts: tuple[str, ...] = ()
    coverage: float | None = None
    min_count: int | None = None
    max_vocab: int | None = None
    top_k: int | None = None
    keep_tokens: tuple[Path, ...] = ()
    keep_code: bool = False


@dataclass(frozen=True)
class VocabularyChoice:
    """The tokens to keep, closed, each with its reasons.

    reasons          kept id -> reasons, ids ascending ("special", "byte", "language:ko", "corpus", "closure of ▁hello")
    corpus_coverage  share of the corpus's token occurrences that are kept, None without a corpus
    """

    reasons: Mapping[int, tuple[str, ...]]
    corpus_coverage: float | None
    notes: tuple[str, ...] = ()


def choose_vocabulary(
    tokenizer: SourceTokenizer,
    request: VocabularyRequest,
    *,
    counts: TokenCounts | None = None,
    protected: Sequence[int] = (),
    chat_template: str | None = None,
) -> VocabularyChoice:
    """Choose and close the vocabulary; `protected` ids come from the model's configuration and always stay."""
    raise NotImplementedError
