"""Rows of the vocabulary that are no token's: which the configuration or the model's code refers to, and what padding is.

Most models have rows after their tokenizer's last token, so that matrices have a round size: nothing refers to them and they
go. Rows that the configuration names stay, and so do those with which the code of a family computes (families.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langslice.errors import PlanError
from langslice.model.axes import LiveRows
from langslice.model.token_id_fields import IdField
from langslice.tokenizer import SourceTokenizer

# Bytes that no UTF-8 text holds: their tokens are trained as little as padding rows are.
_IMPOSSIBLE_SURFACES = frozenset(bytes([value]) for value in (0xC0, 0xC1, *range(0xF5, 0x100)))


def protected_rows(named: Sequence[IdField], implied: Mapping[str, int | Sequence[int]]) -> dict[int, str]:
    """Rows that the configuration names, in its files or by its class's defaults, and who names them."""
    protected: dict[int, str] = {}
    for field in named:
        for row in field.ids:
            protected.setdefault(row, f"named by {field}")
    for path, value in implied.items():
        for row in [value] if isinstance(value, int) else value:
            if row >= 0:
                protected.setdefault(row, f"named by the class default of {path}")
    return protected


def live_rows(live: LiveRows | None, tokenizer: SourceTokenizer, rows: int) -> dict[int, str]:
    """Rows after the last token that stay because the model's code computes with them, and what they stand for."""
    if live is None or live.unless in tokenizer.tokens:
        return {}
    return dict.fromkeys(range(len(tokenizer.tokens), rows), live.meaning)


def rows_note(tokenizer: SourceTokenizer, rows: int, reasons: Mapping[int, str]) -> str:
    """What happens to the rows after the last token; "" where there are none.

    reasons  kept row -> why
    """
    size = len(tokenizer.tokens)
    kept = {row: reasons[row] for row in range(size, rows) if row in reasons}
    dropped = rows - size - len(kept)
    parts = []
    if kept:
        why = ", ".join(dict.fromkeys(kept.values()))
        parts.append(f"{len(kept):,} {'stays' if len(kept) == 1 else 'stay'} ({why})")
    if dropped:
        parts.append(f"{dropped:,} {'is' if dropped == 1 else 'are'} padding, to which nothing refers, and dropped")
    return f"{rows - size:,} rows have no token: {'; '.join(parts)}" if parts else ""


def padding_rows(
    tokenizer: SourceTokenizer,
    kept: np.ndarray,
    rows: int,
    multiple: int | None,
    live: LiveRows | None,
    *,
    new: int = 0,
) -> tuple[int, ...]:
    """Old rows to repeat after the kept ones, and those of new tokens, until their number is a multiple.

    The source's own padding rows come first: they are trained to be improbable. Then one row is repeated that no text
    can ask for: an impossible byte, the unknown token, or the last kept row.
    kept     (n,) int64 old rows
    rows     of the source
    new      rows of new tokens
    Raises   PlanError where the model's code would read what follows its live rows as more of them
    """
    if multiple is None:
        return ()
    if multiple < 1:
        raise PlanError(f"--pad-to-multiple-of {multiple}: expected a positive number", hint="64 suits most hardware")
    missing = -(len(kept) + new) % multiple
    if missing and live_rows(live, tokenizer, rows) and live is not None:
        raise PlanError(
            f"--pad-to-multiple-of {multiple}: the model's last rows are {live.meaning}, and its code would take rows after "
            "them for more",
            hint="leave --pad-to-multiple-of away",
        )
    size = len(tokenizer.tokens)
    named = set(kept[kept >= size].tolist())
    own = [row for row in range(size, rows) if row not in named][:missing]
    impossible = [row for row in sorted(tokenizer.byte_ids) if tokenizer.surface(row)[:1] in _IMPOSSIBLE_SURFACES]
    filler = next(iter(impossible), tokenizer.unknown_id if tokenizer.unknown_id is not None else int(kept[-1]))
    return (*own, *[filler] * (missing - len(own)))
