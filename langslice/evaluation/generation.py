"""Greedy generation in batches, for translation and for language confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from langslice.evaluation.loaded_model import Loaded

_BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}


def generate(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    stop: Sequence[int] = (),
    forced_first: int | None = None,
) -> list[list[int]]:
    """Continue (causal) or answer (encoder-decoder) prompts greedily.

    prompts       token ids
    new_tokens    most tokens to write
    stop          ids that end a text, next to the model's end of text
    forced_first  id that an encoder-decoder must begin with, such as a language
    Returns       the written ids of each prompt, without the end and what follows it
    """
    import torch

    from langslice.model.transformers_classes import quiet_transformers

    model, device = loaded.model, loaded.model.device
    ends = sorted({*_end_ids(model), *stop})
    filler = ends[0] if ends else 0
    options: dict[str, Any] = {"forced_bos_token_id": forced_first} if forced_first is not None else {}
    written: list[list[int]] = [[] for _ in prompts]
    for batch in _batches(prompts, new_tokens, _BATCH_TOKENS["cuda" if device.type == "cuda" else "cpu"]):
        width = max(len(prompts[number]) for number in batch)
        left = loaded.kind == "causal"  # what is written must follow the prompt directly
        ids = np.full((len(batch), width), filler, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, number in enumerate(batch):
            tokens = list(prompts[number])
            where = slice(width - len(tokens), None) if left else slice(0, len(tokens))
            ids[row, where], mask[row, where] = tokens, 1
        with torch.inference_mode(), quiet_transformers():
            output = model.generate(
                input_ids=torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device),
                max_new_tokens=new_tokens, do_sample=False, num_beams=1, pad_token_id=filler,
                eos_token_id=ends or None, **options,
            )  # fmt: skip
        for row, number in enumerate(batch):
            tokens = output[row, width if left else 1 :].tolist()
            end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            written[number] = tokens[:end]
    return written


def _end_ids(model: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    if found is None:
        found = getattr(model.config, "eos_token_id", None)
    return [found] if isinstance(found, int) else [value for value in found or () if isinstance(value, int)]


def _batches(prompts: Sequence[Sequence[int]], new_tokens: int, budget: int) -> list[list[int]]:
    """Prompts about as long together, of at most `budget` tokens, written ones included."""
    batches: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        size = len(prompts[number]) + new_tokens
        if batches and (len(batches[-1]) + 1) * size <= budget:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def line_break_ids(loaded: Loaded) -> list[int]:
    """Every token whose text holds a line break: they end a line of a few-shot prompt."""
    if "line breaks" not in loaded.memo:
        texts = loaded.tokenizer.batch_decode([[number] for number in range(len(loaded.tokenizer))])
        loaded.memo["line breaks"] = [number for number, text in enumerate(texts) if "\n" in text]
    found: list[int] = loaded.memo["line breaks"]
    return found


def decode(loaded: Loaded, written: Sequence[Sequence[int]]) -> list[str]:
    """Texts of written ids, special tokens left out."""
    return [text.strip() for text in loaded.tokenizer.batch_decode(written, skip_special_tokens=True)]
