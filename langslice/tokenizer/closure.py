"""Close a choice of tokens: add what it cannot do without, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from langslice.errors import TokenizerError
from langslice.tokenizer import sentencepiece_model
from langslice.tokenizer.bpe import MergeRule, Spelling, listed_merges, ranked_merges, route_closure
from langslice.tokenizer.bpe_splits import OPEN, REACHED, UNREACHED, Splits, split_tokens
from langslice.tokenizer.document import Document, index_of
from langslice.tokenizer.sentencepiece_model import NORMAL, SentencePieceModel
from langslice.tokenizer.settings import CONFIG_FILE, UNKNOWN_ID
from langslice.tokenizer.slow_files import TEKKEN_FILE, is_rank_file, sentencepiece_models
from langslice.tokenizer.source import Closure, SourceTokenizer, remembered
from langslice.tokenizer.unigram import last_duplicates, lowest_piece

# No class of transformers has a higher id of the unknown token built in: 100 in BigBird's.
_BUILT_IN = 127
_NO_IDS = np.zeros(0, dtype=np.int32)


def close_choice(source: SourceTokenizer, chosen: Collection[int], *, lowest: bool = True) -> Closure:
    """See `langslice.tokenizer.close`."""
    for old in chosen:
        if not 0 <= old < len(source.tokens) or source.tokens[old] is None:
            raise TokenizerError(
                f"{source.folder}: id {old} has no token", hint=f"ids run from 0 to {len(source.tokens) - 1}"
            )
    kept = set(chosen)
    added: dict[int, str] = {}

    def add(old: int, reason: str) -> None:
        if old not in kept:
            kept.add(old)
            added[old] = reason

    for old in sorted(source.special_ids - source.reserved_ids):
        add(old, "special")
    for old in sorted(source.byte_ids):
        add(old, "byte")
    if source.unknown_id is not None:
        add(source.unknown_id, "unknown")
    for old in range(_last_built_in(source) + 1):
        add(old, "its id is built into the tokenizer's class")
    models = list(sentencepiece_models(source.folder))
    for old in _lowest(source, models, kept) if lowest else ():
        add(old, "lowest score")
    if source.document is not None and source.document.model_type == "Unigram":
        for last, old in last_duplicates(source.tokens, sorted(kept)):
            add(last, f"last of the pieces spelled '{source.tokens[old]}'")
    for needed, old in _routes(source, models, kept):
        if needed not in kept:
            add(needed, f"closure of '{source.tokens[old]}'")
    return Closure(tuple(sorted(kept)), added)


def _last_built_in(source: SourceTokenizer) -> int:
    """The highest id that classes of transformers do not look up but know; -1 where there is none.

    Those that make their tokenizer of Unigram pieces write the unknown token's id as a number, 2 in RemBERT's and 3 in
    XLM-RoBERTa's, and read no other from the files. Where it moved, they would put another token for unknown characters.
    Rows up to it stay, then, which are special ones but for a few. The number that settings call `unk_id` stays likewise: it
    counts in the SentencePiece file, whose first pieces are these.
    """
    document = source.document
    if document is None or document.model_type != "Unigram":
        return -1
    named = source.settings.get(CONFIG_FILE, {}).get(UNKNOWN_ID)
    known = [document.skeleton["model"].get("unk_id"), named]
    return max((old for old in known if isinstance(old, int) and old <= _BUILT_IN), default=-1)


def _lowest(source: SourceTokenizer, models: Sequence[SentencePieceModel], kept: Collection[int]) -> Iterator[int]:
    """A piece of the lowest score of every Unigram model in the folder."""
    document = source.document
    if document is not None and document.model_type == "Unigram":
        piece = lowest_piece(document.scores, range(len(document.scores)), kept)
        if piece is not None:
            yield piece
    index: dict[str, int] | None = None
    for model in models:
        if model.model_type != sentencepiece_model.UNIGRAM:
            continue
        index = index_of(source.tokens) if index is None else index
        normal = [
            position for position, text in enumerate(model.texts) if model.types[position] == NORMAL and text in index
        ]
        if normal:
            lowest = min(model.scores[position] for position in normal)
            holders = [index[model.texts[position]] for position in normal if model.scores[position] == lowest]
            yield next((old for old in holders if old in kept), holders[0])


def _routes(
    source: SourceTokenizer, models: Sequence[SentencePieceModel], kept: Collection[int]
) -> Iterator[tuple[int, int]]:
    """Tokens on the routes of all kept tokens, under the rule of every file of the folder that merges."""
    ids = np.fromiter(sorted(kept), dtype=np.int64, count=len(kept))
    walked = ids[_buildable(source)[ids]]
    yield from _listed_routes(source, walked)
    for spelling, rule in _rank_files(source):
        yield from route_closure(walked.tolist(), source.tokens, spelling, rule)
    for model in models:
        if model.model_type == sentencepiece_model.BPE:
            yield from _sentencepiece_routes(source, walked.tolist(), model)


@remembered
def _buildable(source: SourceTokenizer) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which tokens merges can lead to, (size,): added tokens are split out of text before, unless inside a word."""
    found = np.ones(len(source.tokens), dtype=bool)
    found[list(source.byte_ids)] = False
    if source.document is not None:
        for old in source.special_ids - source.byte_ids:
            entry = source.document.added.get(str(source.tokens[old]))
            found[old] = entry is not None and bool(entry["single_word"])
    return found


def _listed_routes(source: SourceTokenizer, walked: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[int, int]]:
    """Routes under the merge list of tokenizer.json: from the last merge of each token, or walked where that is open.

    walked  (n,) ascending ids
    """
    document = source.document
    if document is None or document.merges is None:
        return
    splits = _splits(source)
    listed = np.frombuffer(document.in_model, dtype=np.uint8)[walked] != 0
    state = np.full(len(walked), OPEN) if splits is None else splits.state[walked]
    needed, owners = _NO_IDS, _NO_IDS
    if splits is not None:
        needed, owners = splits.needed(walked[listed & (state == REACHED)])
    left = walked[(state == OPEN) | ~listed].tolist()
    if left:
        rule = listed_merges(document.merges, len(source.tokens))
        least = dict(zip(needed.tolist(), owners.tolist(), strict=True))
        for token, old in route_closure(left, source.tokens, _spelling(source, document), rule):
            least[token] = min(old, least.get(token, old))
        needed, owners = (np.array(list(column), dtype=np.int32) for column in (least.keys(), least.values()))
    order = np.lexsort((needed, owners))
    yield from zip(needed[order].tolist(), owners[order].tolist(), strict=True)


@remembered
def _splits(source: SourceTokenizer) -> Splits | None:
    """The last merge of every token; None where symbols are spelled with a prefix or suffix, and every token is walked."""
    document = source.document
    if document is None or document.merges is None or any(_affixes(document)):
        return None
    spelled = [
        len(token) if token and listed else 0 for token, listed in zip(source.tokens, document.in_model, strict=True)
    ]
    return split_tokens(document.merges, np.asarray(spelled, dtype=np.int64))


def unreached_tokens(source: SourceTokenizer) -> list[int]:
    """Ordinary tokens of a merge list that no merges lead to, ascending; none where that is not known."""
    splits, document = _splits(source), source.document
    if splits is None or document is None:
        return []
    listed = np.frombuffer(document.in_model, dtype=np.uint8) != 0
    own = source.special_ids | source.byte_ids
    return [old for old in np.flatnonzero(listed & (splits.state == UNREACHED)).tolist() if old not in own]


def _affixes(document: Document) -> tuple[str, str]:
    model = document.skeleton["model"]
    return model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""


def _spelling(source: SourceTokenizer, document: Document) -> Spelling:
    index = index_of([token if document.in_model[old] else None for old, token in enumerate(source.tokens)])
    return Spelling(index, *_affixes(document), bool(document.skeleton["model"].get("byte_fallback")))


def _rank_files(source: SourceTokenizer) -> Iterator[tuple[Spelling, MergeRule]]:
    """The rule of every rank file, whose ranks are ids."""
    document = source.document
    if document is None or document.merges is None:
        return
    for path in sorted(source.folder.glob("*")):
        if path.name == TEKKEN_FILE or (path.suffix in (".model", ".tiktoken") and is_rank_file(path)):
            spelling = _spelling(source, document)
            yield spelling, ranked_merges(source.tokens, spelling.index, lambda old: old)


def _sentencepiece_routes(
    source: SourceTokenizer, walked: Sequence[int], model: SentencePieceModel
) -> Iterator[tuple[int, int]]:
    """Routes through the pieces of a SentencePiece BPE model, highest score first; pieces without a token stay."""
    position_of = index_of(model.texts)
    old_of = index_of(source.tokens)
    rule = ranked_merges(model.texts, position_of, lambda position: -model.scores[position])
    positions = [position_of[token] for old in walked if (token := source.tokens[old]) in position_of and token]
    for needed, position in route_closure(positions, model.texts, Spelling(position_of, byte_fallback=True), rule):
        if model.texts[needed] in old_of:
            yield old_of[model.texts[needed]], old_of[model.texts[position]]
