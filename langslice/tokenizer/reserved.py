"""Tokens that a vocabulary holds in reserve: names for later use, which no training text had.

They are known by their form alone: `<unused12>` (Gemma), `[unused12]` (BERT), `<|reserved_special_token_3|>` (Llama 3) and
their like. Whether something refers to one is for others to find out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = r"unused|reserved|placeholder|dummy|extra|empty|spare|blank|special|unk|pad"
_RESERVED = re.compile(
    # A word and a number between brackets: <unused12>, [unused12], <|extra_3|>, <SPECIAL_12>, >>UNUSED_3<<.
    rf"(?:<\|?|\[|>>)(?:{_WORD})_?\d+(?:\|?>|\]|<<)"
    # With more words in it: <|reserved_special_token_3|>, <|extratoken_3|>, [UNUSED_TOKEN_3].
    r"|(?:<\|?|\[)(?:reserved|unused|extra|dummy|empty|placeholder)_?(?:special_)?tokens?_?\d+(?:\|?>|\])"
    # As DeepSeek, Seed and fairseq write them.
    r"|<｜place▁holder▁no▁\d+｜>|<\[PLHD\d+_never_used\]>|madeupword\d+",
    re.IGNORECASE,
)


def reserved_among(tokens: Iterable[tuple[int, str | None]]) -> frozenset[int]:
    """Ids of the tokens that are named as kept in reserve, of (id, token).

    Example  [(3, "<unused0>"), (4, "<s>"), (5, "[unused7]")] gives {3, 5}
    """
    return frozenset(old for old, token in tokens if token is not None and _RESERVED.fullmatch(token))
