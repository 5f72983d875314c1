"""Encode weighted texts and add up their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from langslice.counting.pieces import OPENS, SPACE, Pieces, classes_before
from langslice.counting.split_points import ANCHOR, LEFT, LETTER, OPAQUE, START, SplitRules, joins

Encode = Callable[[Sequence[str]], list[list[int]]]

PIECES_PER_LINE = 32  # a third faster than one per line; no gain beyond
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


def text_of(rules: SplitRules, piece: str) -> tuple[str, str]:
    """How one piece is encoded alone: what is before it, whose tokens come off, and the whole text."""
    if piece[0] == START:
        return "", piece[1:]
    if piece[0] == " " or rules.points not in ("space", "letter"):
        return ANCHOR, ANCHOR + piece
    head = ANCHOR + (LETTER if rules.points == "letter" else " ")
    return head.rstrip(), head + piece


def lines_of(rules: SplitRules, pieces: Pieces) -> Iterator[tuple[str, int]]:
    """Turn counted pieces into few lines whose weighted tokens add up to theirs; the anchors come off with -weight.

    Pieces that open a unit stand alone, as they did. Those that end in white space, or in a character from which a token
    could reach into the next piece, stand alone after the anchor. All others of equal weight are joined: after one
    anchor those that follow a space; those that follow a letter as `SplitRules.points` says.
    """
    if not len(pieces):
        return
    spaced, pointed = _joinable(rules, pieces)
    off: Counter[str] = Counter()
    for piece, weight in pieces.take(~(spaced | pointed)).texts():
        head, text = text_of(rules, piece)
        if text:  # the indentation before a unit's only leading space is empty
            yield text, weight
        off[head] += weight
    for text, weight in _joined(pieces.take(spaced), ""):
        yield ANCHOR + text, weight
        off[ANCHOR] += weight
    head, before = {"space": (ANCHOR, " "), "letter": (ANCHOR, LETTER)}.get(rules.points, ("", ANCHOR))
    for text, weight in _joined(pieces.take(pointed), before):
        yield head + text, weight
        off[head] += weight
    if before.strip():
        number = int(pieces.weights[pointed].sum())
        off[head + before] += number
        off[head] -= number
    yield from ((head, -weight) for head, weight in off.items() if head and weight)


def _joinable(rules: SplitRules, pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the pieces that follow a space, and of those that follow a letter, after which another may be."""
    ends = pieces.offsets[1:]
    last, classes = pieces.data[ends - 1], classes_before(rules, pieces.data, ends)
    safe = (last != SPACE) & ((classes & (OPAQUE | LEFT)) == 0)
    following = {"space": safe, "letter": safe, "digit": joins(classes, last)}.get(rules.points, np.zeros_like(safe))
    first = pieces.opening
    return (first == SPACE) & safe, (first != SPACE) & (first != OPENS) & following


def _joined(pieces: Pieces, before: str) -> Iterator[tuple[str, int]]:
    """Some pieces at a time that occur equally often, one after the other, each with `before` in front of it."""
    pieces = pieces.take(np.argsort(pieces.weights, kind="stable"))
    data, offsets = pieces.data, pieces.offsets.astype(np.int64)
    if before:
        codes = np.frombuffer(before.encode(), np.uint8)
        data = np.insert(data, np.repeat(offsets[:-1], len(codes)), np.tile(codes, len(pieces)))
        offsets = offsets + len(codes) * np.arange(len(offsets))
    text = data.tobytes()
    changes = np.flatnonzero(np.diff(pieces.weights)) + 1
    starts, stops = [0, *changes.tolist()], [*changes.tolist(), len(pieces)]
    for start, stop in zip(starts, stops, strict=True):
        for at in range(start, stop, PIECES_PER_LINE):
            end = min(at + PIECES_PER_LINE, stop)
            yield text[offsets[at] : offsets[end]].decode(), int(pieces.weights[at])
