"""Which text a Unigram model parts into the same tokens wherever it is.

The model adds up scores from the beginning of a word, and takes the larger of two sums. After other text all sums are
larger by the same amount and round otherwise, so two that are almost equal may change places. Here the best and the second
best sum are compared at every step of the best way through a text. Two ways with the same tokens in another order (`))` and
`)`, or `)` and `))`) always have almost equal sums; which is taken does not change how often a token occurs.

Source  the search is that of Viterbi, as in Kudo 2018 (arXiv 1804.10959), section 3.2
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LONGEST_PART = 64  # bytes; longer ones are rare, and rarely the same
# Bytes. Two ways through a part begin at one sum, at most 2**26 scores below 2**5, and each adds 64 scores at most: together
# they round by less than 2 * 64 * 2**31 * 2**-53 = 3e-5.
LONGEST_WORD = 1 << 26
MARGIN = 1e-4  # above that, and far below most differences of scores
ROWS = 1 << 14  # parts of one length looked at together


@dataclass(frozen=True)
class Level:
    """The nodes at one depth of the tree of all tokens.

    keys    sorted int64, 128 × place of the node above in its level + ASCII code
    scores  of the token that ends there, -inf where none does
    marks   random uint64 of each token; the sum over a way's tokens tells whether two ways have the same
    """

    keys: np.ndarray
    scores: np.ndarray
    marks: np.ndarray


def token_tree(vocabulary: Iterable[tuple[str, float]]) -> tuple[Level, ...]:
    """The tree of a vocabulary's ASCII tokens, a level for each length."""
    tokens = [(token.encode(), score) for token, score in vocabulary if token and token.isascii() and "\0" not in token]
    if not tokens:
        return ()
    lengths = np.array([len(token) for token, _ in tokens])
    scores = np.array([score for _, score in tokens])
    codes = np.array([token for token, _ in tokens]).view(np.uint8).reshape(len(tokens), -1)
    chance = np.random.default_rng(0)
    nodes = np.zeros(len(tokens), np.int64)
    levels = []
    for depth in range(int(lengths.max())):
        deep = lengths > depth
        keys, places = np.unique(nodes[deep] * 128 + codes[deep, depth], return_inverse=True)
        ending = np.full(len(keys), -np.inf)
        last = lengths[deep] == depth + 1
        ending[places[last]] = scores[deep][last]
        nodes[deep] = places
        levels.append(Level(keys, ending, chance.integers(0, 1 << 63, len(keys), np.uint64)))
    return tuple(levels)


def decided(tree: tuple[Level, ...], data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Tell for each text whether its best way is better by more than MARGIN than any with other tokens.

    data          UTF-8 of all texts
    starts, ends  (n,) of each text in `data`
    Returns       (n,) bool; False too for what is not ASCII, has a character that is no token, or exceeds LONGEST_PART
    """
    lengths = ends - starts
    found = np.zeros(len(starts), bool)
    for length in range(1, LONGEST_PART + 1):
        places = np.flatnonzero(lengths == length)
        for at in range(0, len(places), ROWS):
            some = places[at : at + ROWS]
            found[some] = _decided(tree, data[starts[some] + np.arange(length)[:, None]])
    return found


def _decided(tree: tuple[Level, ...], codes: np.ndarray) -> np.ndarray:
    """The same for (length, n) codes of texts of one length."""
    length, number = codes.shape
    best = np.full((length + 1, number), -np.inf)
    best[0] = 0.0
    second = np.full((length + 1, number), -np.inf)
    marks = np.zeros((length + 1, number), np.uint64)
    came_from = np.zeros((length + 1, number), np.int8)
    for start in range(length):
        texts = np.flatnonzero(best[start] > -np.inf)
        nodes = np.zeros(len(texts), np.int64)
        for end, level in enumerate(tree[: length - start], start + 1):
            keys = nodes * 128 + codes[end - 1, texts]
            places = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
            known = (level.keys[places] == keys) & (codes[end - 1, texts] < 128)
            texts, nodes = texts[known], places[known]
            if not len(texts):
                break
            some, tokens = _ending(level, texts, nodes)
            sums, before = best[start, some] + level.scores[tokens], best[end, some]
            mark, mark_before = marks[start, some] + level.marks[tokens], marks[end, some]
            better = sums > before
            same = (mark == mark_before) & (np.abs(sums - before) < MARGIN)
            loser = np.where(same, -np.inf, np.where(better, before, sums))
            second[end, some] = np.maximum(second[end, some], loser)
            best[end, some] = np.where(better, sums, before)
            marks[end, some] = np.where(better, mark, mark_before)
            came_from[end, some] = np.where(better, start, came_from[end, some])
    texts, at = np.arange(number), np.full(number, length)
    found = best[length] > -np.inf
    while at.any():
        gap = np.full(number, np.inf)
        np.subtract(best[at, texts], second[at, texts], out=gap, where=second[at, texts] > -np.inf)
        found &= (at == 0) | (gap > MARGIN)
        at = came_from[at, texts].astype(np.int64)
    return found


def _ending(level: Level, texts: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those at whose node a token ends."""
    ends = level.scores[nodes] > -np.inf
    return texts[ends], nodes[ends]
