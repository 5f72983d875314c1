"""What it costs to lose a token: how much worse the pieces that take its place are predicted.

Lines are read twice: in the whole vocabulary, and in the smallest one that can be had. What the pieces of a token lose there more
than it lost itself is its cost. Tokens that the lines do not hold get the cost of others of as many pieces; those that they hold
seldom, something between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from langslice.evaluation.label_scores import score_sequences
from langslice.evaluation.loaded_model import Loaded
from langslice.evaluation.perplexity import start_token
from langslice.tokenizer import SourceTokenizer

Costs = np.ndarray[Any, np.dtype[np.float64]]
# So many occurrences count as much as what is known from the number of pieces.
_PRIOR: Final = 4.0
# No token is worth nothing: nats of an occurrence.
_LEAST: Final = 0.02


def can_learn(original: Loaded) -> bool:
    """Whether a model predicts text, token by token, and its tokenizer says where in the text tokens are."""
    return original.kind == "causal" and bool(original.tokenizer.is_fast)


def token_costs(
    original: Loaded, smallest: Loaded, tokenizer: SourceTokenizer, texts: Mapping[str, Sequence[str]]
) -> Costs:
    """Nats that an occurrence of each token of the source loses when its pieces stand for it: (tokens,).

    smallest  the model with the smallest vocabulary
    """
    size = len(tokenizer.tokens)
    lost, counts, pieces = np.zeros(size), np.zeros(size), np.zeros(size)
    for lines in texts.values():
        for whole, apart in zip(_read(original, lines), _read(smallest, lines), strict=True):
            ids, starts, nats = whole
            if not len(ids):
                continue
            owner = np.clip(np.searchsorted(starts, apart[1], side="right") - 1, 0, len(ids) - 1)
            np.add.at(lost, ids, np.bincount(owner, apart[2], len(ids)) - nats)
            np.add.at(pieces, ids, np.bincount(owner, minlength=len(ids)))
            np.add.at(counts, ids, 1.0)
    many = _piece_counts(smallest, tokenizer)
    cut = (counts > 0) & (pieces > counts)
    expected = np.zeros(size)
    if cut.sum() > 2:
        design = np.stack([np.ones(cut.sum()), np.log(pieces[cut] / counts[cut])], axis=1)
        weight = np.sqrt(counts[cut])[:, None]
        fitted, *_ = np.linalg.lstsq(design * weight, (lost[cut] / counts[cut])[:, None] * weight, rcond=None)
        expected = fitted[0, 0] + fitted[1, 0] * np.log(np.maximum(many, 1.0))
    return np.maximum((lost + _PRIOR * expected) / (counts + _PRIOR), _LEAST)


def _read(loaded: Loaded, lines: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each line its ids, where in it they begin, and the nats that each loses; lines too long for the model are truncated."""
    encoded = loaded.tokenizer(list(lines), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    most = None if loaded.max_length is None else loaded.max_length - 1
    start = start_token(loaded.model.config)
    rows = [list(ids[:most]) for ids in encoded.input_ids]
    scored = score_sequences(loaded, [[[start, *ids]] for ids in rows], share=False)
    return [
        (
            np.array(ids, dtype=np.int64),
            np.array([first for first, _ in places[:most]], dtype=np.int64),
            -nats.astype(np.float64),
        )
        for ids, places, (nats,) in zip(rows, encoded.offset_mapping, scored, strict=True)
    ]


def _piece_counts(smallest: Loaded, tokenizer: SourceTokenizer) -> np.ndarray:
    """In how many pieces of the smallest vocabulary each token of the source falls, as text of its own: (tokens,)."""
    texts = [
        "" if token is None or at in tokenizer.special_ids else tokenizer.surface(at).decode("utf-8", "replace")
        for at, token in enumerate(tokenizer.tokens)
    ]
    return np.array([len(ids) for ids in smallest.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids])
