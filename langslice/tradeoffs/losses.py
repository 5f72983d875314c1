"""What a model loses on text: bits per byte, or for encoders the distance of its embeddings from the original's.

Causal models read each line by itself. Encoder-decoders read a line and write the same line, for want of another side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Final

import numpy as np

from langslice.evaluation.loaded_model import Loaded
from langslice.evaluation.statistics import STATISTICS, difference

BITS: Final = "bits per byte"
DISTANCE: Final = "1 - cosine to the original"
_BATCH: Final = 8
Items = np.ndarray


@dataclass(frozen=True)
class Loss:
    """What a slice loses in one language, more than its original: with the bounds of its paired bootstrap interval.

    before, after  the loss itself, of both
    """

    before: float
    after: float
    value: float
    low: float
    high: float


def measure_of(kind: str) -> str:
    """What the loss of a kind of model is in."""
    return DISTANCE if kind == "encoder" else BITS


def line_items(loaded: Loaded, texts: Mapping[str, Sequence[str]]) -> dict[str, Items]:
    """Language -> items of its lines: (n, 2) bits and bytes; for an encoder (n, size) embeddings of length 1."""
    return {language: _ITEMS[loaded.kind](loaded, lines) for language, lines in texts.items()}


def losses(kind: str, before: Mapping[str, Items], after: Mapping[str, Items]) -> dict[str, Loss]:
    """Language -> what was lost between two sets of items.

    before, after  as `line_items` gives them: (n, 2) bits and bytes, or (n, size) embeddings
    """
    return {language: _loss(kind, items, after[language]) for language, items in before.items()}


def _loss(kind: str, before: Items, after: Items) -> Loss:
    statistic = "mean" if kind == "encoder" else "ratio"
    if kind == "encoder":
        distance = 1 - (before * after).sum(1, keepdims=True)
        before, after = np.zeros_like(distance), distance
    score = STATISTICS[statistic]
    found = difference(statistic, before, after)
    return Loss(float(score(before[None])[0]), float(score(after[None])[0]), found.value, found.low, found.high)


def _causal(loaded: Loaded, lines: Sequence[str]) -> Items:
    from langslice.evaluation.perplexity import measure_perplexity

    return next(found.items for found in measure_perplexity(loaded, "", lines) if found.metric == BITS)


def _encoder(loaded: Loaded, lines: Sequence[str]) -> Items:
    from langslice.evaluation.embedding import embed

    return embed(loaded.model, lines)


def _seq2seq(loaded: Loaded, lines: Sequence[str]) -> Items:
    import torch
    from torch.nn.functional import cross_entropy

    tokenizer, found = loaded.tokenizer, np.zeros((len(lines), 2))
    order = sorted(range(len(lines)), key=lambda at: len(lines[at]))
    options: dict[str, Any] = {"return_tensors": "pt", "padding": True, "truncation": loaded.max_length is not None}
    if loaded.max_length is not None:
        options["max_length"] = loaded.max_length
    for first in range(0, len(order), _BATCH):
        batch = order[first : first + _BATCH]
        texts = [lines[at] for at in batch]
        read = tokenizer(texts, **options).to(loaded.model.device)
        target = tokenizer(text_target=texts, **options).to(loaded.model.device)
        labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
        with torch.inference_mode():
            logits = loaded.model(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=labels
            ).logits.float()
        nats = cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)  # (lines,)
        found[batch, 0] = nats.double().cpu().numpy() / log(2)
        found[batch, 1] = [len(text.encode()) for text in texts]
    return found


_ITEMS: Final = {"causal": _causal, "encoder": _encoder, "seq2seq": _seq2seq}
