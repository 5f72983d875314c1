"""Text as sequences of tokens: encoded, held-out documents set apart, packed, and dealt out in an order that the seed fixes.

A document is what the corpus calls a unit: a line of a text file, a record of jsonl. What a model is asked on a sequence is
the business of objectives.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CorpusError
from langslice.progress import Report, silent
from langslice.tokenizer import open_tokenizer

Ids = npt.NDArray[np.int32]
_AT_ONCE = 1000
_HELDOUT_DOCUMENTS = 512
_MOST_UNKNOWN, _NOTED_UNKNOWN = 0.4, 0.01  # shares of the tokens


@dataclass(frozen=True)
class Frame:
    """What a model expects around a text.

    before     ids that its tokenizer puts in front, such as [CLS]
    after      ids that it puts after, such as [SEP]
    separator  end of a document inside a packed sequence, None where the model has no such token
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    separator: int | None


@dataclass(frozen=True)
class TokenSequences:
    """Sequences of different lengths in one array: sequence i is `flat[starts[i]:starts[i + 1]]`.

    flat    (tokens,) int32
    starts  (sequences + 1,) int64
    """

    flat: Ids
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, sequence: int) -> Ids:
        return self.flat[self.starts[sequence] : self.starts[sequence + 1]]

    def digest(self) -> str:
        """sha256 of the sequences."""
        found = hashlib.sha256(np.ascontiguousarray(self.flat, dtype="<i4").tobytes())
        found.update(np.ascontiguousarray(self.starts, dtype="<i8").tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Text:
    """What is trained on and what is held out."""

    train: TokenSequences
    heldout: TokenSequences
    documents: int
    notes: tuple[str, ...] = ()


def find_frame(tokenizer: Any, config: Any, *, causal: bool) -> Frame:
    """What the tokenizer puts around a text, and what ends a document."""
    bare = list(tokenizer("a", add_special_tokens=False).input_ids)
    full = list(tokenizer("a").input_ids)
    at = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
    before, after = tuple(full[:at]), tuple(full[at + len(bare) :])
    end = tokenizer.eos_token_id
    if end is None:
        end = getattr(config, "eos_token_id", None)
        end = end[0] if isinstance(end, list) else end
    if not causal:
        return Frame(before, after, after[-1] if after else end)
    if not before and getattr(config, "bos_token_id", None) == end and end is not None:
        before = (end,)  # one token begins and ends texts
    return Frame(before, (), end)


def read_text(
    folder: Path,
    units: Iterable[str],
    frame: Frame,
    *,
    seq_length: int,
    packing: bool,
    causal: bool,
    heldout: float,
    seed: int,
    report: Report = silent,
) -> Text:
    """Encode a corpus and lay it out.

    folder   of the tokenizer
    Returns  sequences of at most `seq_length` tokens for a causal model; otherwise room is left for what is around a text
    Raises   CorpusError when the text has no tokens
    """
    documents, unknown = _encode(folder, units, report)
    notes = check_known(documents, unknown)
    kept, apart = _split(documents, heldout, seed)
    if heldout and not apart:
        notes.append("too few documents to hold any out: the loss on held-out text is not measured")
    room = seq_length if causal else seq_length - len(frame.before) - len(frame.after)
    lay_out = _packed if packing else _one_by_one
    return Text(
        lay_out(kept, frame, room, causal=causal),
        lay_out(apart, frame, room, causal=causal),
        len(documents),
        tuple(notes),
    )


def check_known(documents: Sequence[Any], unknown: int | None) -> list[str]:
    """Refuse text that the tokenizer cannot read; gives a note where it can read a part only.

    documents  ids of each
    unknown    id of the unknown token
    Raises     CorpusError
    """
    total = sum(len(one) for one in documents)
    lost = 0 if unknown is None else sum(int((np.asarray(one) == unknown).sum()) for one in documents)
    hint = "is it empty, or in a script that the slice has no tokens for?"
    if not total:
        raise CorpusError("the corpus tokenises to nothing", hint)
    if lost > _MOST_UNKNOWN * total:
        raise CorpusError(f"the corpus tokenises to nothing: {lost:,} of its {total:,} tokens are unknown", hint)
    return (
        [f"{lost:,} of {total:,} tokens of the corpus are unknown to the slice"]
        if lost > _NOTED_UNKNOWN * total
        else []
    )


def _encode(folder: Path, units: Iterable[str], report: Report) -> tuple[list[Ids], int | None]:
    """Documents that have tokens, and the id of the unknown token."""
    tokenizer = open_tokenizer(folder)
    documents: list[Ids] = []
    batch: list[str] = []

    def encode() -> None:
        documents.extend(np.array(ids, dtype=np.int32) for ids in tokenizer.encode(batch) if ids)
        report(f"reading text, {len(documents):,} documents", 0, 0)
        batch.clear()

    for unit in units:
        batch.append(unit)
        if len(batch) == _AT_ONCE:
            encode()
    if batch:
        encode()
    return documents, tokenizer.unknown_id


def _split(documents: Sequence[Ids], heldout: float, seed: int) -> tuple[list[Ids], list[Ids]]:
    """Set documents apart; the same document is never on both sides."""
    count = min(round(heldout * len(documents)) or int(heldout > 0 and len(documents) > 1), _HELDOUT_DOCUMENTS)
    chosen = np.random.default_rng([seed, 1]).permutation(len(documents))[:count].tolist()
    apart = {documents[number].tobytes() for number in chosen}
    kept = [document for document in documents if document.tobytes() not in apart]
    if not kept:
        return list(documents), []
    return kept, [documents[number] for number in sorted(chosen)]


def _packed(documents: Sequence[Ids], frame: Frame, room: int, *, causal: bool) -> TokenSequences:
    """One long run of documents with a separator after each, split into sequences; the last may be shorter."""
    end = [] if frame.separator is None else [frame.separator]
    begin = list(frame.before) if causal else []
    # Where one token begins and ends a text, the end of one document is the beginning of the next.
    again = [] if begin == end else begin
    parts: list[Any] = []
    for number, document in enumerate(documents):
        parts += [np.array(again if number else begin, dtype=np.int32), document, np.array(end, dtype=np.int32)]
    flat = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    starts = np.arange(0, flat.size, room, dtype=np.int64)
    if starts.size > 1 and flat.size - starts[-1] < 2:  # nothing can be predicted within one sequence of one token
        flat = flat[: starts[-1]]
        starts = starts[:-1]
    return TokenSequences(flat, np.append(starts, flat.size).astype(np.int64))


def _one_by_one(documents: Sequence[Ids], frame: Frame, room: int, *, causal: bool) -> TokenSequences:
    """A sequence for each document, further sequences for what does not fit."""
    begin = np.array(frame.before if causal else (), dtype=np.int32)
    end = np.array([frame.separator] if causal and frame.separator is not None else [], dtype=np.int32)
    sequences: list[Ids] = []
    for document in documents:
        whole = np.concatenate([begin, document, end])
        pieces = [whole[at : at + room] for at in range(0, whole.size, room)]
        sequences += [piece for piece in pieces if piece.size > 1 or len(pieces) == 1]
    sizes = np.array([0, *(sequence.size for sequence in sequences)], dtype=np.int64)
    return TokenSequences(np.concatenate(sequences) if sequences else np.zeros(0, dtype=np.int32), np.cumsum(sizes))


class Order:
    """Which sequence is at which place of a run: every pass over the text in a new order, a function of the seed alone.

    Example  Order(sequences=3, seed=0)[0..2] are three different sequences, and so are [3..5]
    """

    def __init__(self, sequences: int, seed: int) -> None:
        self._sequences, self._seed = sequences, seed
        self._pass = (-1, np.zeros(0, dtype=np.int64))

    def __getitem__(self, place: int) -> int:
        number, at = divmod(place, self._sequences)
        if self._pass[0] != number:
            self._pass = (number, np.random.default_rng([self._seed, 2, number]).permutation(self._sequences))
        return int(self._pass[1][at])
