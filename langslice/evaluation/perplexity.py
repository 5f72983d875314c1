"""Perplexity of a causal model on lines of text, comparable across vocabularies.

Per token it depends on how text is split; per byte it does not. A slice gives every kept token the same logit as its source,
but shares out the probability among fewer tokens: its perplexity is that of the source *restricted to kept tokens*, which
is lower than or equal to the source's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.model.transformers_classes import model_class, quiet_transformers
from langslice.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from langslice.evaluation.loaded_model import Loaded
    from langslice.evaluation.measurement import Measurement


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
    """The unmodified causal model in float32 on the CPU."""
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
    start = start_token(model.config)
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


def start_token(config: Any) -> int:
    """The token that a line is read after: the beginning of text, or its end where a model has no beginning, or 0."""
    named = (getattr(config, field, None) for field in ("bos_token_id", "eos_token_id"))
    return next((value for value in named if isinstance(value, int)), 0)


def measure_perplexity(loaded: Loaded, language: str, lines: Sequence[str]) -> list[Measurement]:
    """Perplexity per byte and per character, and bits per byte, of lines read each by itself; empty ones are left out.

    A line of more tokens than the model reads is read in pieces, each after the start token; `pieces` counts the further
    ones. A slice shares out probability among fewer tokens, and so scores a little better than its source on kept text.
    """
    from langslice.evaluation.label_scores import score_sequences
    from langslice.evaluation.measurement import Measurement

    lines = [line for line in lines if line.strip()]
    start = start_token(loaded.model.config)
    encoded = loaded.tokenizer(lines, add_special_tokens=False).input_ids
    step = max(map(len, encoded)) if loaded.max_length is None else loaded.max_length - 1
    pieces = [[[start, *ids[at : at + step]] for at in range(0, len(ids), step)] for ids in encoded]
    scored = score_sequences(loaded, pieces, share=False)
    nats = np.array([-sum(float(values.sum(dtype=np.float64)) for values in line) for line in scored])
    sizes = np.array([len(line.encode()) for line in lines], dtype=np.float64)
    characters = np.array([len(line) for line in lines], dtype=np.float64)
    details = {"tokens": sum(map(len, encoded)), "pieces": sum(len(line) - 1 for line in pieces)}

    def measured(metric: str, statistic: str, over: np.ndarray, scale: float = 1.0) -> Measurement:
        items = np.stack([nats * scale, over], axis=1)
        return Measurement("perplexity", language, metric, statistic, items, "lower", details)

    return [
        measured("perplexity per byte", "exp_ratio", sizes),
        measured("perplexity per character", "exp_ratio", characters),
        measured("bits per byte", "ratio", sizes, 1 / log(2)),
    ]
