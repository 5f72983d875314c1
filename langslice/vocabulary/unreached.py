"""Tokens that no merges lead to: text is never split into them, so that nothing keeps them, and a model may still write them."""

from __future__ import annotations

import numpy as np

from langslice.tokenizer import Closure, SourceTokenizer
from langslice.tokenizer.closure import unreached_tokens
from langslice.vocabulary.scripts import TokenScripts

# Of the vocabulary. Complete merge lists of 30,000 to 260,000 tokens leave out at most four tokens of letters.
_FEW = 0.001


def unreached_note(tokenizer: SourceTokenizer, classes: TokenScripts, closure: Closure) -> tuple[str, ...]:
    """A note where the merges lead to so few of the tokens that some must be missing from the file; else nothing."""
    letters = np.char.startswith(classes.kind_array, "letters:")
    lost = [old for old in unreached_tokens(tokenizer) if letters[old]]
    if len(lost) <= _FEW * len(tokenizer.tokens):
        return ()
    kept = set(closure.kept)
    gone = sum(old not in kept for old in lost)
    shown = ", ".join(repr(tokenizer.tokens[old]) for old in lost[:3])
    return (
        f"no merge leads to {len(lost):,} tokens such as {shown}: text is never split into them, and {gone:,} of them go, "
        "which the model may have learned to write; merges may be missing from tokenizer.json (download it again), or name "
        "what must stay in --keep-tokens",
    )
