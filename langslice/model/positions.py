"""How long a text a model can read, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.model.families import reading_of

# Fields that count a model's positions, in the order in which they are asked.
_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions")


def longest_text(config: Mapping[str, Any]) -> int | None:
    """Most tokens that a model reads at once; None where config.json sets no limit.

    config   of the model; of a wrapper with towers, whose text model is in `text_config`, too
    Example  514 positions and padding id 1: RoBERTa's first token has position 2, so 512
    """
    inner = config.get("text_config")
    text: Mapping[str, Any] = inner if isinstance(inner, dict) else config
    family = reading_of(text)
    if family.any_length:
        return None
    for name in _FIELDS:
        positions = text.get(name)
        if isinstance(positions, int) and positions > 0:
            # ProphetNet looks up the position after each token, too.
            ahead = 1 if isinstance(text.get("ngram"), int) else 0
            return positions - ahead - (int(text.get("pad_token_id") or 0) + 1 if family.offset_positions else 0)
    return None
