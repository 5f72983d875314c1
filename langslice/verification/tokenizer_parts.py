"""The parts of tokenizer.json: scores, merges, added tokens and every setting are the source's, in the source's order.

Nothing here calls what wrote the file: both files are read, and what is in the one is looked up in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from langslice.planning.plan import SlicePlan
from langslice.tokenizer import SourceTokenizer
from langslice.tokenizer.document import Document
from langslice.verification.check import MAX_EXAMPLES, Check

# Parts without an id in them, which a slice leaves as they are.
_PLAIN = ("version", "truncation", "normalizer", "pre_tokenizer", "decoder")
# The large parts of the model, and its one id; they are compared by functions of their own.
_MODEL_OWN = ("vocab", "merges", "unk_id")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def new_ids(plan: SlicePlan, tokens: int) -> np.ndarray:
    """(rows,) int64: old id -> new id, -1 where it is not kept; as long as the vocabulary or the tokenizer, if longer."""
    new_of = np.full(max(plan.rows, tokens), -1, dtype=np.int64)
    new_of[plan.kept] = np.arange(plan.kept.shape[0])
    return new_of


def check_tokenizer(source: SourceTokenizer, result: SourceTokenizer, plan: SlicePlan) -> Check | None:
    """Compare tokenizer.json part by part; None for a tokenizer without one, whose files are compared whole."""
    before, after = source.document, result.document
    if before is None or after is None:
        return None
    new_of = new_ids(plan, len(source.tokens))
    wrong = [
        *_scores(before, after, plan),
        *_merges(before, after, new_of, plan),
        *_added(before, after, new_of),
        *_settings(before.skeleton, after.skeleton, new_of),
    ]
    merges = 0 if after.merges is None else len(after.merges.left)
    detail = f"{len(after.scores) or sum(after.in_model):,} pieces, {merges:,} merges, {len(after.added)} added tokens"
    return Check("tokenizer", not wrong, f"{detail}, and all settings", tuple(wrong[:MAX_EXAMPLES]))


def _scores(before: Document, after: Document, plan: SlicePlan) -> Iterator[str]:
    if before.model_type != after.model_type:
        yield f"the model is {after.model_type}, expected {before.model_type}"
        return
    if not len(before.scores):
        return
    kept = plan.kept[plan.kept < len(before.scores)]
    expected, found = np.asarray(before.scores)[kept], np.asarray(after.scores)
    if plan.extension:  # then added tokens stand among the pieces, and new pieces after them
        rest = np.full(len(plan.kept) - len(kept), min(before.scores))
        expected = np.concatenate([expected, rest, [one.score or 0.0 for one in plan.extension]])
        lowest = min(before.scores[old] for old in kept.tolist())
        for one in plan.extension:
            if one.score is None or one.score < lowest:
                yield f"the score of the new piece {one.token!r} is below the lowest, by which unknown characters are scored"
    if len(found) != len(expected):
        yield f"{len(found):,} pieces with a score, expected {len(expected):,}"
    length = min(len(found), len(expected))
    for new in np.flatnonzero(found[:length] != expected[:length])[:MAX_EXAMPLES].tolist():
        yield f"the score of {after.tokens[new]!r} is {found[new]}, expected {expected[new]}"


def _merges(before: Document, after: Document, new_of: np.ndarray, plan: SlicePlan) -> Iterator[str]:
    """Every merge of the source whose parts and product are kept, in the source's order, then those of new tokens, and no other."""
    if before.merges is None or after.merges is None:
        return
    columns = [new_of[column] for column in (before.merges.left, before.merges.right, before.merges.product)]
    stays = np.logical_and.reduce([column >= 0 for column in columns])
    index = {token: at for at, token in enumerate(after.tokens)}
    added = [(*one.parts, one.token) for one in plan.extension if one.parts]
    new = np.array([[index.get(token, -1) for token in row] for row in added], dtype=np.int64).reshape(-1, 3).T
    expected = np.concatenate([np.stack([column[stays] for column in columns]), new], axis=1)
    found = np.stack([after.merges.left, after.merges.right, after.merges.product])
    if expected.shape[1] != found.shape[1]:
        yield f"{found.shape[1]:,} merges, expected {expected.shape[1]:,}"
    length = min(expected.shape[1], found.shape[1])
    for rank in np.flatnonzero((expected[:, :length] != found[:, :length]).any(axis=0))[:MAX_EXAMPLES].tolist():
        pairs = [" + ".join(repr(after.tokens[part]) for part in side[:2, rank]) for side in (found, expected)]
        yield f"merge {rank} is {pairs[0]}, expected {pairs[1]}"


def _added(before: Document, after: Document, new_of: np.ndarray) -> Iterator[str]:
    """Every added token that is kept, with its flags, and no other."""
    expected = {content: entry for content, entry in before.added.items() if new_of[entry["id"]] >= 0}
    for content in [*expected, *(content for content in after.added if content not in expected)]:
        old, new = expected.get(content), after.added.get(content)
        if old is None or new is None:
            yield f"the added token {content!r} {'is missing' if new is None else 'is not in the source'}"
            continue
        if new["id"] != new_of[old["id"]]:
            yield f"the added token {content!r} has id {new['id']}, expected {new_of[old['id']]}"
        for flag in _FLAGS:
            if bool(old.get(flag)) != bool(new.get(flag)):
                yield f"the added token {content!r} has {flag} {new.get(flag)}, expected {old.get(flag)}"


def _settings(before: Mapping[str, Any], after: Mapping[str, Any], new_of: np.ndarray) -> Iterator[str]:
    for key in _PLAIN:
        if before.get(key) != after.get(key):
            yield f"{key} is not the source's"
    for key in ("post_processor", "padding"):
        if not _same_but_ids(before.get(key), after.get(key), new_of, holds_ids=False):
            yield f"{key} is not the source's with its ids renumbered"
    models = [
        {key: part["model"].get(key) for key in part["model"] if key not in _MODEL_OWN} for part in (before, after)
    ]
    for key in sorted(set(models[0]) | set(models[1])):
        if models[0].get(key) != models[1].get(key):
            yield f"model: {key} is {models[1].get(key)!r}, expected {models[0].get(key)!r}"
    unknown = [part["model"].get("unk_id") for part in (before, after)]
    if unknown[1] != (None if unknown[0] is None else int(new_of[unknown[0]])):
        yield f"model: unk_id is {unknown[1]}, expected that of the source's {unknown[0]}"


def _same_but_ids(before: Any, after: Any, new_of: np.ndarray, *, holds_ids: bool) -> bool:
    """Whether two JSON values are equal when the ids in the first are renumbered.

    holds_ids  whether the numbers right in this value are token ids
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(
            _same_but_ids(value, after[key], new_of, holds_ids=key in ("ids", "pad_id", "sep", "cls"))
            for key, value in before.items()
        )
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(
            _same_but_ids(one, other, new_of, holds_ids=holds_ids) for one, other in zip(before, after, strict=True)
        )
    if holds_ids and isinstance(before, int):
        return isinstance(after, int) and 0 <= before < len(new_of) and int(new_of[before]) == after
    return type(before) is type(after) and before == after
