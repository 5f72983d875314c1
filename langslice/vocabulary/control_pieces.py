"""Pieces of the ordinary vocabulary that steer a model, and that no text of a language asks for.

Language codes (`<2ko>` of MADLAD-400, `>>kor<<` of Marian, `__ko__` of M2M100, `[ko_KR]` and `ko_KR` of mBART, `kor_Hang` of NLLB)
and sentinels (`<extra_id_0>`) are known by their form. SentencePiece's CONTROL and USER_DEFINED pieces are known by their type,
and where only tokenizer.json is there, by their score: both have 0, which no learnt piece of a Unigram model has.
Tokens that the tokenizer itself declares as special or added are none of these: they always stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.document import index_of
from langslice.tokenizer.sentencepiece_model import CONTROL, USER_DEFINED
from langslice.tokenizer.slow_files import sentencepiece_models
from langslice.tokenizer.source import remembered

_CODE: Final = r"([a-z]{2,3}(?:[_-](?:[A-Z][a-z]{3}|[A-Z]{2}|[a-z]{2}))?)"
_CODES: Final = re.compile(rf"▁?(?:<2{_CODE}>|<to[_:-]{_CODE}>|<lang[_:-]{_CODE}>|<\|{_CODE}\|>|>>{_CODE}<<)")
# Forms that other things have too: codes only of languages that people speak, and not where all of a form are such things.
_LIKELY_CODES: Final = tuple(
    re.compile(rf"▁?{form}")
    for form in (
        rf"<{_CODE}>", rf"__{_CODE}__", rf"\[{_CODE}\]", r"([a-z]{2}_[A-Z]{2})", r"([a-z]{3}_[A-Z][a-z]{3})",
    )
)  # fmt: skip
# Tags of HTML and methods of Python that are spelled as the code of a language.
_OTHERWISE: Final = (
    "br dd dl dt em hr li ol rt td th tr ul bdi bdo col del dfn div img ins kbd map nav pre sub sup svg var wbr "
    "abs add all and dir eq ge get gt hex iadd int ior le len lt mod mul ne neg new not or pos pow rad set str xor"
)
_SENTINELS: Final = re.compile(
    r"▁?(?:<2\w+>|>>\w+<<|<extra_id_\d+>|<(?:mask|sentinel|ctrl|task|loc|seg|speaker)_?\d+>|<\|\w+\|>|\[(?:NLU|NLG|S2S)\])"
)
# Every form above has one of these signs.
_SIGNS: Final = frozenset("<>[_")
_SHOWN: Final = 6


@dataclass(frozen=True)
class ControlPieces:
    """Pieces of a vocabulary that steer the model.

    codes   id -> the language that it is the code of, as langcodes names it ("ko", "zh")
    others  ids of sentinels and of control and user-defined pieces
    """

    codes: Mapping[int, str]
    others: frozenset[int]


@remembered
def control_pieces(tokenizer: SourceTokenizer) -> ControlPieces:
    """Find the pieces that steer the model, among those that are no special tokens."""
    passed = tokenizer.special_ids | tokenizer.byte_ids
    tokens = {
        old: token
        for old, token in enumerate(tokenizer.tokens)
        if token is not None and _SIGNS.intersection(token) and old not in passed
    }
    codes = _named(tokens, _CODES)
    for form in _LIKELY_CODES:
        found = {old: language for old, language in _named(tokens, form).items() if _is_spoken(language)}
        if any(re.sub(r"\W|_", "", tokens[old]) not in _OTHERWISE.split() for old in found):
            codes = {**found, **codes}
    others = (set(_by_type(tokenizer)) | {old for old in tokens if _SENTINELS.fullmatch(tokens[old])}) - passed
    return ControlPieces(dict(sorted(codes.items())), frozenset(others - set(codes)))


def _named(tokens: Mapping[int, str], form: re.Pattern[str]) -> dict[int, str]:
    """The language of each token of this form."""
    found: dict[int, str] = {}
    for old, token in tokens.items():
        match = form.fullmatch(token)
        language = language_of(next(filter(None, match.groups()))) if match else None
        if language is not None:
            found[old] = language
    return found


@lru_cache(maxsize=1024)
def _is_spoken(language: str) -> bool:
    import langcodes

    return bool(langcodes.Language.get(language).speaking_population() > 0)


@lru_cache(maxsize=4096)
def language_of(code: str) -> str | None:
    """The language of a code that models use, None for what is none: "ko_KR", "kor_Hang", "kor" -> "ko"."""
    import langcodes

    try:
        parsed = langcodes.Language.get(code.replace("_", "-")).prefer_macrolanguage()
    except ValueError:
        return None
    known = parsed.language and langcodes.Language.make(language=parsed.language).is_valid()
    return str(parsed.language) if known else None


def kept_codes(pieces: ControlPieces, languages: Iterable[str], *, every: bool) -> set[int]:
    """Ids of the codes of these languages, whatever script or region they add.

    languages  tags that are kept; without any nobody has said which are wanted, and all codes stay
    every      keep all
    """
    wanted = {language_of(tag) for tag in languages}
    return {old for old, language in pieces.codes.items() if every or not wanted or language in wanted}


def control_notes(tokenizer: SourceTokenizer, pieces: ControlPieces, codes: set[int]) -> Iterator[str]:
    """What a user should know of these pieces.

    codes  the language codes that stay
    """
    if pieces.others:
        yield f"control pieces of the vocabulary kept: {_listed(tokenizer, pieces.others)}"
    dropped = set(pieces.codes) - codes
    if codes:
        yield f"language codes kept: {_listed(tokenizer, codes)}"
    if dropped:
        yield (
            f"language codes of other languages dropped: {_listed(tokenizer, dropped)}; --keep-all-language-codes keeps them"
        )


def _listed(tokenizer: SourceTokenizer, ids: Iterable[int]) -> str:
    names = [str(tokenizer.tokens[old]) for old in sorted(ids)]
    return ", ".join(names) if len(names) <= _SHOWN else f"{', '.join(names[: _SHOWN - 1])} … ({len(names):,} in all)"


def _by_type(tokenizer: SourceTokenizer) -> Iterator[int]:
    """Pieces that SentencePiece made for control or for the user, by their type or, in tokenizer.json, by their score."""
    document = tokenizer.document
    if document is not None and document.model_type == "Unigram" and min(document.scores, default=0.0) < 0:
        yield from (old for old, score in enumerate(document.scores) if score == 0.0)
    index: dict[str, int] = {}
    for model in sentencepiece_models(tokenizer.folder):
        index = index or index_of(tokenizer.tokens)
        for text, kind in zip(model.texts, model.types, strict=True):
            if kind in (CONTROL, USER_DEFINED) and text in index:
                yield index[text]
