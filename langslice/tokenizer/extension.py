"""Tokens that a tokenizer is to have and its source has not: what they are made of, and how files spell that out.

New tokens follow all old ones, so every old id stays, and nothing that makes an old token is touched:

BPE        A new merge ranks after all old ones. None of the old merges has a new token in it, so all of them have fired before
           the first new one does: text is encoded as before, and then new merges join neighbours. With every new token
           replaced by its pieces the encoding is the old one, whatever the text.
Unigram    A new piece only adds paths. The best path is the old one, or it has a new piece in it. A new piece scores no
           less than the lowest old one, by which unknown characters are scored.
WordPiece  The longest match is another one only where a new piece matches. What follows a new piece can always be spelled,
           since every character inside a word has a piece of its own (see `lone_characters`).

So, for all three: an encoding without a new token is the old encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langslice.errors import TokenizerError
from langslice.tokenizer.document import Document

KINDS = ("byte-bpe", "spm-bpe", "char-bpe", "unigram", "wordpiece")
_LEAST_GAIN = 1e-4  # of a Unigram piece over its split, per token that it saves; float32 still tells it apart


@dataclass(frozen=True)
class NewToken:
    """A token that the source does not have, or that the slice dropped.

    token   as the vocabulary file spells it
    pieces  source ids of the tokens that spell it without new tokens, in order
    parts   BPE: the two tokens whose merge makes it; None where it is matched as it is
    score   Unigram: log probability; None elsewhere
    count   how often it was made in the text that it was learned from; 0 for one that was listed
    origin  the source's own id of this token, where it has it and the slice dropped it; its row is taken then
    alike   source ids of the tokens whose rows its row is the mean of, with their weights; () where that is its pieces
    """

    token: str
    pieces: tuple[int, ...]
    parts: tuple[str, str] | None = None
    score: float | None = None
    count: int = 0
    origin: int | None = None
    alike: tuple[tuple[int, float], ...] = ()


def piece_score(scores: Sequence[float], lowest: float) -> float:
    """The score of a new Unigram piece: what its pieces have together, and a little for each token that it saves.

    It wins over its own split, and by no more than that over any other, so that it takes as little text as it can from pieces
    that are likelier than its split; but never less than the lowest old score.
    scores  of its pieces
    """
    return max(sum(scores) + _LEAST_GAIN * (len(scores) - 1), lowest)


def lone_characters(document: Document, kept: Sequence[int]) -> list[str]:
    """WordPiece: characters inside words that have no piece of their own, as the pieces that they lack, in order.

    Without them a longer first match could end where no piece goes on, and the whole word would become unknown.
    kept     source ids
    """
    prefix = str(document.skeleton["model"].get("continuing_subword_prefix") or "")
    pieces = {token for old in kept if document.in_model[old] and (token := document.tokens[old])}
    special = {*document.added, str(document.skeleton["model"].get("unk_token"))}
    inside: set[str] = set()
    for piece in pieces - special:
        continues = piece.startswith(prefix) and piece != prefix
        inside.update(piece[len(prefix) :] if continues else piece[1:])
    return sorted(prefix + character for character in inside if prefix + character not in pieces)


def new_scores(document: Document, kept: Sequence[int]) -> Iterator[float]:
    """The score of each kept token, once all of them are pieces: an added token, which text never reaches, has the lowest."""
    lowest = min(document.scores)
    for old in kept:
        yield document.scores[old] if old < len(document.scores) else lowest


def check_extendable(document: Document | None, kind: str, where: str) -> Document:
    """The document of a tokenizer to which tokens can be added.

    Raises  TokenizerError for one to which they cannot
    """
    if document is None or kind not in KINDS:
        raise TokenizerError(
            f"{where}: a tokenizer of the kind {kind!r} cannot be extended",
            hint=f"new tokens need one of: {', '.join(KINDS)}",
        )
    for content, entry in document.added.items():
        if document.model_type == "Unigram" and entry.get("single_word") and not document.in_model[int(entry["id"])]:
            raise TokenizerError(
                f"{where}: the added token {content!r} would become a piece, which words that hold it could use",
                hint="it is marked `single_word`; unmark it, or extend another model",
            )
    return document
