"""The form of a plan's new tokens, which a person may have edited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from langslice.errors import PlanError
from langslice.files.json_forms import FixedList
from langslice.tokenizer.extension import NewToken
from langslice.writing.new_rows import RowMean

NEW_TOKEN = {
    "token": str, "pieces": [int], "parts?": [str], "score?": float, "count?": int, "origin?": int,
    "alike?": [FixedList(int, float)],
}  # fmt: skip
# What weights that a plan has in decimals may be short of 1.
_CLOSE = 1e-6


def check_extension(extension: Sequence[NewToken], tokens: Sequence[str | None], kept: np.ndarray, rows: int) -> None:
    """Refuse new tokens that a person has taken pieces from, or that are there already.

    tokens  (n,) of the kept rows
    kept    (n,) int64
    rows    of the source

    Raises  PlanError
    """
    if not extension:
        return
    known, stay, made = set(tokens), set(kept.tolist()), set[str]()
    for one in extension:
        if one.token in known or one.token in made:
            raise PlanError(f"the new token {one.token!r} is a token already", hint="take it out of `extension`")
        missing = [old for old in (*one.pieces, *(old for old, _ in one.alike)) if old not in stay]
        parts = [part for part in one.parts or () if part not in known and part not in made]
        if missing or parts or not one.pieces:
            raise PlanError(
                f"the new token {one.token!r} needs {parts[0]!r}" if parts
                else f"the new token {one.token!r} has no pieces" if not one.pieces
                else f"the new token {one.token!r} needs row {missing[0]}, which the plan drops",
                hint="add its line to `kept` again, or take the token out of `extension`",
            )  # fmt: skip
        if one.origin is not None and not 0 <= one.origin < rows:
            raise PlanError(
                f"the new token {one.token!r} has the row {one.origin} of {rows}", hint="correct its `origin`"
            )
        weights = [weight for _, weight in one.alike]
        if weights and (min(weights) <= 0 or abs(sum(weights) - 1) > _CLOSE):
            raise PlanError(
                f"the new token {one.token!r} has weights that are no shares: they add up to {sum(weights):.6g}",
                hint="correct its `alike`, or take that out: then its row is the mean of its pieces' rows",
            )
        made.add(one.token)


def mean_rows(one: NewToken) -> RowMean:
    """The source's rows that a new token's row is the mean of."""
    if one.alike:
        return RowMean(tuple(old for old, _ in one.alike), tuple(weight for _, weight in one.alike))
    return RowMean(one.pieces)


def extension_json(extension: Sequence[NewToken]) -> Iterator[dict[str, Any]]:
    """New tokens as JSON-ready data, one at a time."""
    for one in extension:
        entry: dict[str, Any] = {"token": one.token, "pieces": list(one.pieces)}
        entry |= {} if one.parts is None else {"parts": list(one.parts)}
        entry |= {} if one.score is None else {"score": one.score}
        entry |= {"count": one.count} if one.count else {}
        entry |= {} if one.origin is None else {"origin": one.origin}
        entry |= {"alike": [list(each) for each in one.alike]} if one.alike else {}
        yield entry


def extension_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[NewToken, ...]:
    """What `extension_json` gave.

    Raises  ValueError for a merge that is not of two tokens
    """
    found = []
    for entry in entries:
        parts = entry.get("parts")
        if parts is not None and len(parts) != 2:
            raise ValueError(f"{entry['token']!r} is made of {len(parts)} parts, expected two")
        score = entry.get("score")
        found.append(
            NewToken(
                entry["token"], tuple(entry["pieces"]), None if parts is None else (parts[0], parts[1]),
                None if score is None else float(score), int(entry.get("count", 0)), entry.get("origin"),
                tuple((int(old), float(weight)) for old, weight in entry.get("alike", ())),
            )
        )  # fmt: skip
    return tuple(found)
