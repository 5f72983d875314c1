"""Unigram: what a choice needs so that the best path through kept pieces stays the best.

Dropping pieces only takes paths away, so a path of kept pieces that was best stays best. Two things could still move:
the score of an unknown character, which is the lowest score of all minus ten, and the piece after a string that is
listed twice, of which the last counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from langslice.tokenizer.document import index_of


def lowest_piece(scores: Sequence[float], ids: Collection[int], chosen: Collection[int]) -> int | None:
    """A piece of the lowest score among `ids`, one of `chosen` where possible; None without pieces."""
    if not ids:
        return None
    lowest = min(scores[piece] for piece in ids)
    holders = [piece for piece in ids if scores[piece] == lowest]
    return next((piece for piece in holders if piece in chosen), holders[0])


def last_duplicates(tokens: Sequence[str | None], chosen: Collection[int]) -> Iterator[tuple[int, int]]:
    """(id of the last piece with the same string, chosen id) for chosen pieces that a later one overrides."""
    index = index_of(tokens)
    if len(index) == sum(token is not None for token in tokens):
        return
    for piece in chosen:
        token = tokens[piece]
        if token is not None and index[token] != piece:
            yield index[token], piece
