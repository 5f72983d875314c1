"""Count the tokens of a stream of text: choose the method, split, encode, add up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np

from langslice.counting.blocks import TextBlock, Totals, unit_blocks
from langslice.counting.counter import count_blocks, weighted_pieces
from langslice.counting.counts import TokenCounts, token_fingerprint
from langslice.counting.pieces import TABLE_BYTES
from langslice.counting.split_points import ANCHOR, START, SplitRules, split_rules
from langslice.counting.weighted_texts import Encode, backend_encode
from langslice.counting.workers import count_in_processes
from langslice.errors import CorpusError
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.source import remembered

SMALL_BLOCKS = 24  # text of so many blocks (a million characters each) is counted before other processes would be ready
SMALL_CHARACTERS = 200_000  # so little distinct text is encoded whole before the rules for splitting it would be found
BATCH_TEXTS = 8192  # of `distinct_chunks`: who encodes a batch holds the tokens of all its texts
MOST_PROCESSES = 16  # reading and finding repeated units is one process's work; more than this would wait for it


def count_tokens(
    tokenizer: SourceTokenizer,
    units: Iterable[str],
    *,
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> TokenCounts:
    """Count the tokens of all units, type by type the same as encoding each unit whole.

    units      texts; each is encoded on its own, without special tokens around it
    processes  how many count at once; None for one up to four cores, as it splits text on one core while the encoder
               uses the others, and for half of the cores beyond. The counts do not depend on it
    progress   receives the UTF-8 bytes of text read since its last call
    Returns    counts; `note` says where text could not be split, and why
    Raises     CorpusError when there is no text at all, or a unit is not valid Unicode
    Memory     bounded: for each process 200 to 300 MB of text being split and of distinct pieces, the tokenizer (200 to 300 MB
               for 200,000 tokens), and what the longest unit takes
    """
    totals = Totals()
    blocks = unit_blocks(units, totals, progress)
    processes = _available(processes)
    head = list(islice(blocks, SMALL_BLOCKS))
    encode, rules, backend = prepare(tokenizer, small=_is_small(head))
    size = len(tokenizer.tokens)
    if backend is None or processes == 1 or len(head) < SMALL_BLOCKS:
        counts, mismatches = count_blocks(encode, rules, size, chain(head, blocks))
    else:
        everything = chain(head, blocks)
        counts, mismatches = count_in_processes(backend.to_str(), rules, size, everything, processes, TABLE_BYTES)
    if totals.characters == 0:
        raise CorpusError("the corpus has no text to count", "check the paths, and --text-field for jsonl and parquet")
    return TokenCounts(
        counts=counts,
        units=totals.units,
        characters=totals.characters,
        size_bytes=totals.size_bytes,
        method="full" if rules.reason else "chunks",
        note=_note(rules, mismatches),
        fingerprint=token_fingerprint(tokenizer),
        tokens=tokenizer.tokens,
        kind=tokenizer.kind,
    )


def distinct_chunks(tokenizer: SourceTokenizer, units: Iterable[str]) -> Iterator[list[tuple[str, int]]]:
    """Batches of (text, weight) whose weighted encodings add up to the encoding of all units.

    A text is a whole unit, the beginning of one, or a later part of one. Where the tokenizer would treat such a part
    otherwise at the start of a text, it comes after a digit, and that digit alone comes with the negative weight; no
    tokenizer that was tried needs this.
    A text may come again in a later batch. Memory is bounded as in `count_tokens`.
    """
    blocks = unit_blocks(units, Totals())
    opening = list(islice(blocks, 2))
    encode, rules, _ = prepare(tokenizer, small=_is_small(opening))
    blocks = chain(opening, blocks)
    head = None if rules.reason else _standalone(encode)
    yield from _batches(_as_texts(weighted_pieces(encode, replace(rules, points=""), blocks), head))


def _as_texts(pieces: Iterable[tuple[str, int]], head: str | None) -> Iterator[tuple[str, int]]:
    anchors = 0
    for piece, weight in pieces:
        if piece[0] == START:
            if len(piece) > 1:
                yield piece[1:], weight
        elif head is not None:
            yield head + piece[1:], weight
        else:
            yield ANCHOR + piece, weight
            anchors += weight
    if anchors:
        yield ANCHOR, -anchors


def _batches(texts: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    waiting = iter(texts)
    while batch := list(islice(waiting, BATCH_TEXTS)):
        yield batch


def _is_small(head: list[TextBlock]) -> bool:
    return len(head) < 2 and sum(len(unit) for block in head for unit in set(block.units)) < SMALL_CHARACTERS


def prepare(tokenizer: SourceTokenizer, *, small: bool = False) -> tuple[Encode, SplitRules, Any]:
    """Give the encoder, the rules for splitting, and the backend (None where there is none) of a tokenizer.

    The rules take a second or two to find, so they are remembered.
    """
    if small:
        return _whole(tokenizer, "the text is small")
    return _prepare(tokenizer)


def _whole(tokenizer: SourceTokenizer, reason: str) -> tuple[Encode, SplitRules, Any]:
    return tokenizer.encode, SplitRules(reason, np.zeros(0, np.uint8)), None


@remembered
def _prepare(tokenizer: SourceTokenizer) -> tuple[Encode, SplitRules, Any]:
    from tokenizers import Tokenizer

    if tokenizer.backend is None:
        kind = tokenizer.kind
        return _whole(tokenizer, f"{kind} tokenizers have no fast backend that tells where text may be split")
    backend = tokenizer.backend
    if backend.truncation is not None or backend.padding is not None:
        backend = Tokenizer.from_str(backend.to_str())  # a copy: the caller's stays as it is
        backend.no_truncation()
        backend.no_padding()
    encode = backend_encode(backend)
    probe = [
        "The quick brown fox, 12 of them; don't!",
        "안녕하세요 여러분",
        "مرحبا بالعالم",
        "नमस्ते दुनिया",
        "def f(x):\n    return x",
    ]
    if encode(probe) != tokenizer.encode(probe):
        return _whole(tokenizer, "its encode differs from its backend's")
    return encode, split_rules(backend), backend


def _standalone(encode: Encode) -> str | None:
    """What to put before a piece so that it is encoded alone as it was inside a text; None if nothing does.

    Byte-level BPE wants the space back; Llama-2's normaliser puts it there itself.
    """
    pieces = [
        "a",
        "Word",
        "é",
        "12",
        "한국",
        "中",
        ".",
        "(",
        "_x",
        "'s",
        "हि",
        "😀",
        "a.b",
        "λ",
        " x",
        "   (y",
        "z ",
        "  ",
    ]
    anchor, *inside = encode([ANCHOR, *(f"{ANCHOR} {piece}" for piece in pieces)])
    for head in (" ", ""):
        if encode([head + piece for piece in pieces]) == [ids[len(anchor) :] for ids in inside]:
            return head
    return None


def _available(processes: int | None) -> int:
    if processes is None:
        cores = os.cpu_count() or 1
        return 1 if cores <= 4 else min(cores // 2, MOST_PROCESSES)
    if processes < 1:
        raise CorpusError(f"{processes} processes: expected at least 1")
    return processes


def _note(rules: SplitRules, mismatches: list[str]) -> str:
    if rules.reason:
        return f"every distinct unit was encoded whole: {rules.reason}"
    if not mismatches:
        return ""
    return (
        f"{len(mismatches)} blocks of a million characters were encoded whole: a sample, such as "
        f"{mismatches[0][:60]!r}, was encoded differently when split"
    )
