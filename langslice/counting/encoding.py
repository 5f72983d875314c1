"""Encode weighted texts and add up their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np

from langslice.counting.cutting import ANCHOR, JOIN, LEFT, OPAQUE, START, CutRules, joins

Encode = Callable[[Sequence[str]], list[list[int]]]

CHUNKS_PER_LINE = 32  # a third faster than one a line; no gain beyond
LINES_PER_CALL = 4096
CHARACTERS_PER_CALL = 1 << 20


def backend_encode(backend: Any) -> Encode:
    """Make texts -> ids without special tokens around them, of a `tokenizers.Tokenizer`."""

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    return encode


def add_encoded(encode: Encode, weighted: Iterable[tuple[str, int]], counts: np.ndarray) -> None:
    """Add weight × tokens of every text to `counts`, (size,) int64."""
    for texts, weights in _calls(weighted):
        lists = encode(texts)
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int64, int(lengths.sum()))
        # bincount adds in float64: exact here, as a call holds less than 2**53 tokens times their weights
        added = np.bincount(ids, np.repeat(np.array(weights, np.float64), lengths), len(counts))
        counts += added.astype(np.int64)


def _calls(weighted: Iterable[tuple[str, int]]) -> Iterable[tuple[list[str], list[int]]]:
    texts: list[str] = []
    weights: list[int] = []
    room = CHARACTERS_PER_CALL
    for text, weight in weighted:
        texts.append(text)
        weights.append(weight)
        room -= len(text)
        if room < 0 or len(texts) == LINES_PER_CALL:
            yield texts, weights
            texts, weights, room = [], [], CHARACTERS_PER_CALL
    if texts:
        yield texts, weights


def lines_of(rules: CutRules, pieces: dict[str, int]) -> Iterable[tuple[str, int]]:
    """Turn counted pieces into few lines whose weighted tokens add up to theirs; the anchors come off with -weight.

    Pieces that open a unit stand alone, as they did. Those that end in white space, or in a character from which a token
    could reach into the next piece, stand alone behind the anchor. All others of equal weight are joined: behind one
    anchor those that follow a space, with one before each those that follow a letter.
    """
    anchors = 0
    inner: list[tuple[int, str]] = []
    points: list[tuple[int, str]] = []
    for piece, weight in pieces.items():
        if piece[0] == START:
            if len(piece) > 1:  # the indentation before a unit's only leading space is empty
                yield piece[1:], weight
        elif piece[0] == JOIN:
            if rules.points == "digit" and joins(rules.classes, piece):
                points.append((weight, ANCHOR + piece[1:]))
            else:
                yield ANCHOR + piece[1:], weight
            anchors += weight
        elif piece[-1] == " " or rules.classes[ord(piece[-1])] & (OPAQUE | LEFT):
            yield f"{ANCHOR} {piece}", weight
            anchors += weight
        else:
            inner.append((weight, piece))
    for texts, weight in _of_equal_weight(inner):
        yield " ".join([ANCHOR, *texts]), weight
        anchors += weight
    for texts, weight in _of_equal_weight(points):
        yield "".join(texts), weight
    if anchors:
        yield ANCHOR, -anchors


def _of_equal_weight(pieces: list[tuple[int, str]]) -> Iterable[tuple[list[str], int]]:
    """Some pieces at a time that occur equally often."""
    pieces.sort(key=itemgetter(0))
    for weight, group in groupby(pieces, itemgetter(0)):
        texts = [text for _, text in group]
        for at in range(0, len(texts), CHUNKS_PER_LINE):
            yield texts[at : at + CHUNKS_PER_LINE], weight
