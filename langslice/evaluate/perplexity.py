"""Perplexity of a causal model on lines of text, comparable across vocabularies.

Per token it depends on how text is cut; per byte it does not. A slice gives every kept token the same logit as its source,
but shares out the probability among fewer tokens: its perplexity is that of the source *restricted to kept tokens*, which
is lower than or equal to the source's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from langslice.stock import model_class, quiet_transformers
from langslice.tokenizer import open_tokenizer


@dataclass(frozen=True)
class Perplexity:
    """Loss of a text.

    nats        summed negative log likelihood
    tokens      predicted tokens
    size_bytes  of the text in UTF-8
    """

    nats: float
    tokens: int
    size_bytes: int

    @property
    def per_token(self) -> float:
        """Exp of the mean loss of a token."""
        return exp(self.nats / max(self.tokens, 1))

    @property
    def bits_per_byte(self) -> float:
        """Mean loss of a byte in bits."""
        return self.nats / log(2) / max(self.size_bytes, 1)


def load_causal(folder: Path) -> Any:
    """The stock causal model in float32 on the CPU."""
    import torch

    with quiet_transformers():
        return model_class(folder).from_pretrained(folder).to(torch.float32).eval()


def perplexity(
    folder: Path, lines: Sequence[str], *, model: Any = None, keep: np.ndarray | None = None, batch_size: int = 16
) -> Perplexity:
    """Perplexity of a model on lines, each read by itself after the first token of the model's configuration.

    folder  a checkpoint with its tokenizer
    model   the same model, loaded before
    keep    (k,) ids: share out the probability among these tokens only; lines that need others must not be given
    """
    import torch

    tokenizer = open_tokenizer(folder)
    model = model if model is not None else load_causal(folder)
    start = next(value for value in (model.config.bos_token_id, model.config.eos_token_id, 0) if isinstance(value, int))
    encoded = sorted(([start, *ids] for ids in tokenizer.encode(list(lines)) if ids), key=len)
    chosen = None if keep is None else torch.from_numpy(np.asarray(keep, dtype=np.int64))
    nats, tokens = 0.0, 0
    with torch.inference_mode():
        for first in range(0, len(encoded), batch_size):
            batch = encoded[first : first + batch_size]
            width = len(batch[-1])
            ids = torch.tensor([row + [start] * (width - len(row)) for row in batch])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()  # (lines, width - 1, vocabulary)
            normaliser = torch.logsumexp(logits if chosen is None else logits[..., chosen], dim=-1)
            picked = logits.gather(-1, ids[:, 1:, None])[..., 0]
            nats += float(((normaliser - picked) * mask[:, 1:]).double().sum())
            tokens += int(mask[:, 1:].sum())
    return Perplexity(nats, tokens, sum(len(line.encode()) for line in lines))
