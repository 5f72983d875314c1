"""Which tokens of the old vocabulary a new one is alike, by the company that both keep in the user's text.

Text is encoded with the new tokens in it. Tokens get vectors from what stands near them, and a new token's row becomes the mean of
the rows of old tokens, weighted by how alike their vectors are. Nothing here reads a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

# Tokens to either side that count as near.
WINDOW = 5
# A token that occurs less often has no vector.
LEAST = 5
DIMENSIONS = 100
# The most frequent tokens: so many have a vector, and so many are what others stand near.
_MOST_TOKENS, _MOST_CONTEXTS = 20_000, 1024
_SMOOTHING = 0.75
_BATCH = 1024

Weighted = tuple[tuple[int, float], ...]
"""Tokens and their weights, which are positive and add up to 1; the heaviest first."""


def similar_tokens(lines: Iterable[Sequence[int]], new: Sequence[int]) -> dict[int, Weighted]:
    """For each new token that the text tells enough of, the old tokens that it is like.

        w = sparsemax(cos(v_new, v_a) over all old tokens a with a vector),    row_new = sum_a w_a row_a

    lines    of token ids, new ones among them
    new      ids of the new tokens
    Returns  new id -> old ids with their weights. A token that occurs fewer than LEAST times is left out, and so is one whose
             company is like nobody's: it goes on being the mean of its pieces
    Source   Dobler and de Melo 2023, "FOCUS", https://arxiv.org/abs/2305.14481, section 3. There the vectors are those of
             fastText, which also reads the letters of a token; here they are made from what stands near it alone, by
             `token_vectors`, so that nothing need be trained. There, rows of tokens that both vocabularies have are copied, as a
             slice does
    """
    kept = [np.asarray(line, dtype=np.int64) for line in lines]
    tokens, counts = np.unique(np.concatenate(kept) if kept else np.zeros(0, np.int64), return_counts=True)
    frequent = counts >= LEAST
    tokens, counts = tokens[frequent], counts[frequent]
    order = np.argsort(-counts, kind="stable")[:_MOST_TOKENS]
    tokens, counts = tokens[order], counts[order]
    if len(tokens) < 2:
        return {}
    vectors = token_vectors(co_occurrences(kept, tokens, min(len(tokens), _MOST_CONTEXTS)))
    fresh = np.isin(tokens, list(new))
    known = ~fresh & (np.abs(vectors).sum(1) > 0)
    found = {}
    for token, vector in zip(tokens[fresh].tolist(), vectors[fresh], strict=True):
        likeness = vectors[known] @ vector
        if likeness.size and likeness.max() > 0:
            found[token] = _heaviest_first(tokens[known], sparsemax(likeness))
    return found


def co_occurrences(
    lines: Sequence[npt.NDArray[np.int64]], tokens: npt.NDArray[np.int64], contexts: int
) -> npt.NDArray[np.float64]:
    """How often each token stands at most WINDOW places from each of the first few of them.

    tokens    (n,) distinct ids that are counted
    contexts  so many of them, the first, are columns
    Returns   (n, contexts)
    Example   lines [[7, 8, 7]], tokens [7, 8], contexts 2: [[2, 2], [2, 0]]
    """
    place = {token: at for at, token in enumerate(tokens.tolist())}
    found = np.zeros(len(tokens) * contexts)
    for batch in _batches(lines):
        ids = np.fromiter((place.get(token, -1) for token in batch.tolist()), np.int64, len(batch))
        keys = []
        for distance in range(1, WINDOW + 1):
            for left, right in ((ids[:-distance], ids[distance:]), (ids[distance:], ids[:-distance])):
                both = (left >= 0) & (right >= 0) & (right < contexts)
                keys.append(left[both] * contexts + right[both])
        pairs, times = np.unique(np.concatenate(keys), return_counts=True)
        found[pairs] += times
    return found.reshape(len(tokens), contexts)


def _batches(lines: Sequence[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
    """Lines one after the other (tokens,), so far apart that none is near another."""
    border, waiting = np.full(WINDOW, -1, dtype=np.int64), iter(lines)
    while batch := list(islice(waiting, _BATCH)):
        yield np.concatenate([part for line in batch for part in (line, border)])


def token_vectors(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Vectors of length 1 from co-occurrences; zeros for a token that stands near nothing more often than by chance.

        M_tc = max(0, log(N_tc N / (N_t N'_c))),   N'_c = N_c^.75 N / sum_d N_d^.75,   M ~ U S V',   v_t = (U S^.5)_t / |...|

    counts   (tokens, contexts)
    Returns  (tokens, at most DIMENSIONS)
    Source   positive pointwise mutual information, smoothed, and its singular vectors: Levy, Goldberg and Dagan 2015, TACL 3,
             sections 2 and 3
    """
    whole, by_token = counts.sum(), counts.sum(1, keepdims=True)
    smooth = counts.sum(0) ** _SMOOTHING
    expected = by_token * (smooth / max(smooth.sum(), 1e-30))
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.where(counts > 0, np.maximum(np.log(counts / expected), 0), 0) if whole else counts
    squares, right = np.linalg.eigh(positive.T @ positive)
    largest = np.argsort(-squares, kind="stable")[:DIMENSIONS]
    largest = largest[squares[largest] > 1e-9 * max(squares.max(initial=0), 1e-30)]
    vectors = positive @ right[:, largest] / squares[largest] ** 0.25  # U S = M V, and S = squares^.5
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30))


def sparsemax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest point with non-negative entries that add up to 1.

        max(0, z - t), where t is such that the sum is 1

    scores   (n,)
    Returns  (n,)
    Source   Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068, algorithm 1
    Example  [0.9, 0.5, -1]: [0.7, 0.3, 0]
    """
    descending = np.sort(scores)[::-1]
    sums, places = np.cumsum(descending), np.arange(1, len(scores) + 1)
    support = np.flatnonzero(1 + places * descending > sums)[-1]
    return np.asarray(np.maximum(scores - (sums[support] - 1) / (support + 1), 0))


def _heaviest_first(tokens: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> Weighted:
    order = [at for at in np.argsort(-weights, kind="stable").tolist() if weights[at] > 0]
    return tuple((int(tokens[at]), float(weights[at])) for at in order)
