"""What a model is asked on a sequence of tokens: the next token, the masked ones, or the text after a damaged one.

    causal      predict every token from those before it
    masked      15% of the tokens are chosen; 80% of these become the mask, 10% another token, 10% stay (Devlin et al. 2019)
    denoising   T5: spans of 3 tokens, 15% in all, become sentinels, and the decoder writes what they hide (Raffel et al. 2020);
                others: spans of Poisson(3) tokens, 30% in all, become one mask each, and the decoder writes the whole
                text (BART, Lewis et al. 2020)

What is damaged is a function of the seed and the place in the run, so that a run that goes on after a kill sees the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from langslice.errors import HealError
from langslice.healing.sequences import Frame, Ids, Order, TokenSequences
from langslice.model.families import reading_of

IGNORED: Final = -100  # no loss here; transformers' convention
_MASKED_SHARE, _SPAN_SHARE, _INFILLING_SHARE = 0.15, 0.15, 0.3
_SPAN = 3

Example = dict[str, list[int]]


@dataclass(frozen=True)
class Objective:
    """One objective for one model.

    name       "causal", "masked", "denoising"
    frame      what is around a text
    pad        id that fills a batch up
    mask       id of the mask token, None where none is needed
    sentinels  ids of T5's sentinels in their order; empty for others
    plain      ids that a masked token may become: all but special ones
    special    ids that are never masked
    """

    name: str
    frame: Frame
    pad: int
    mask: int | None = None
    sentinels: tuple[int, ...] = ()
    plain: Ids | None = None
    special: frozenset[int] = frozenset()

    def example(self, sequence: Ids, rng: np.random.Generator) -> Example:
        """Input and labels of a sequence.

        sequence  (tokens,) int32 ids
        rng       decides what is masked or removed
        """
        if self.name == "causal":
            return {"input_ids": sequence.tolist(), "labels": sequence.tolist()}
        if self.name == "masked" and self.mask is not None:
            return self._masked(sequence, self.mask, rng)
        return self._spans(sequence, rng) if self.sentinels else self._infilled(sequence, rng)

    def _masked(self, sequence: Ids, mask: int, rng: np.random.Generator) -> Example:
        whole = np.concatenate([self.frame.before, sequence, self.frame.after]).astype(np.int32)
        choosable = np.flatnonzero(~np.isin(whole, list(self.special)))
        count = max(round(_MASKED_SHARE * choosable.size), min(choosable.size, 1))
        chosen = rng.choice(choosable, count, replace=False) if count else choosable
        labels = np.full(whole.size, IGNORED, dtype=np.int32)
        labels[chosen] = whole[chosen]
        draw = rng.random(count)
        others = self.plain if self.plain is not None else whole
        whole[chosen[draw < 0.8]] = mask
        swapped = chosen[(draw >= 0.8) & (draw < 0.9)]
        whole[swapped] = rng.choice(others, swapped.size)
        return {"input_ids": whole.tolist(), "labels": labels.tolist()}

    def _spans(self, sequence: Ids, rng: np.random.Generator) -> Example:
        """T5: each span becomes a sentinel; the target is each sentinel with what it hides, and one more at the end."""
        hidden = round(_SPAN_SHARE * sequence.size) or 1
        spans = min(max(round(hidden / _SPAN), 1), len(self.sentinels) - 1, max(sequence.size - hidden, 1))
        sizes = 1 + rng.multinomial(max(hidden - spans, 0), [1 / spans] * spans)
        gaps = rng.multinomial(max(sequence.size - int(sizes.sum()), 0), [1 / (spans + 1)] * (spans + 1))
        source, target, at = list[int](), list[int](), 0
        for number, (gap, size) in enumerate(zip(gaps, sizes, strict=False)):
            source += [*sequence[at : at + gap].tolist(), self.sentinels[number]]
            target += [self.sentinels[number], *sequence[at + gap : at + gap + size].tolist()]
            at += int(gap + size)
        source += sequence[at:].tolist()
        return {
            "input_ids": [*self.frame.before, *source, *self.frame.after],
            "labels": [*target, self.sentinels[spans], *self.frame.after],
        }

    def _infilled(self, sequence: Ids, rng: np.random.Generator) -> Example:
        """BART: spans become one mask each, spans of no token too; the target is the whole text."""
        source, at, left = list[int](), 0, max(round(_INFILLING_SHARE * sequence.size), 1)
        starts = set(rng.choice(sequence.size, min(max(round(left / _SPAN), 1), sequence.size), replace=False).tolist())
        while at < sequence.size:
            if at in starts and left > 0 and self.mask is not None:
                size = min(int(rng.poisson(_SPAN)), left, sequence.size - at)
                source.append(self.mask)
                starts.discard(at)
                left -= size
                at += size
                continue
            source.append(int(sequence[at]))
            at += 1
        around = (self.frame.before, self.frame.after)
        return {
            "input_ids": [*around[0], *source, *around[1]],
            "labels": [*around[0], *sequence.tolist(), *around[1]],
        }


def choose_objective(wanted: str, kind: str, config: Any, architectures: Sequence[str]) -> str:
    """The objective for a model, or why there is none.

    kind    "causal", "seq2seq" or "encoder", as langslice.evaluation.loaded_model.model_kind says
    Raises  HealError
    """
    fits = {"causal": "causal", "seq2seq": "denoising", "encoder": "masked"}[kind]
    if wanted not in ("auto", fits):
        raise HealError(
            f"--objective {wanted} does not fit {', '.join(architectures) or config.model_type}",
            f"it is healed by `{fits}`",
        )
    if kind == "encoder" and not any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
        raise HealError(
            f"{', '.join(architectures) or config.model_type} has no language model head, so it cannot be healed on text alone",
            "sentence-transformers folders (with modules.json) are healed as embedding models",
        )
    reading = reading_of({"model_type": config.model_type})
    if reading.language:
        raise HealError(
            f"`{config.model_type}` models read a language token with every text, and a corpus does not say its language",
            "healing is for causal, masked, T5-like, BART-like and sentence embedding models",
        )
    if reading.hears:
        raise HealError("speech models are not healed on text", "train it with transformers on speech")
    return fits


def make_objective(name: str, folder: Path, tokenizer: Any, config: Any, frame: Frame, rows: int) -> Objective:
    """The objective with the ids that it needs.

    rows    of the vocabulary
    Raises  HealError where the tokenizer lacks a mask token or sentinels
    """
    pad = next((one for one in (tokenizer.pad_token_id, frame.separator, 0) if one is not None), 0)
    special = frozenset(
        int(one) for one in (*tokenizer.all_special_ids, *frame.before, *frame.after) if one is not None
    )
    if name == "causal":
        return Objective(name, frame, pad)
    if name == "denoising" and reading_of({"model_type": config.model_type}).sentinels:
        return Objective(name, frame, pad, sentinels=_sentinels(folder, tokenizer))
    mask = tokenizer.mask_token_id
    if mask is None:
        raise HealError(f"{folder}: the tokenizer has no mask token", f"`{name}` training needs one")
    plain = np.setdiff1d(
        np.arange(min(rows, len(tokenizer)), dtype=np.int32), np.array(sorted(special), dtype=np.int32)
    )
    return Objective(name, frame, pad, mask=mask, plain=plain.astype(np.int32), special=special)


def _sentinels(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ids of <extra_id_0>, <extra_id_1>, ... however the vocabulary spells them."""
    vocabulary = tokenizer.get_vocab()
    found: list[int] = []
    while True:
        names = (f"<extra_id_{len(found)}>", f"▁<extra_id_{len(found)}>")
        token = next((vocabulary[name] for name in names if name in vocabulary), None)
        if token is None:
            break
        found.append(token)
    if len(found) < 2:
        raise HealError(
            f"{folder}: the tokenizer has {len(found)} sentinels (<extra_id_0>, ...), expected at least 2",
            "slice again with --keep-tokens naming them: span corruption needs them",
        )
    return tuple(found)


class Examples:
    """The examples of a run in their order; `torch.utils.data.DataLoader` reads it as a map-style dataset.

    static  what is damaged depends on the sequence alone, not on the place: a cached teacher has seen each sequence once
    """

    def __init__(
        self, sequences: TokenSequences, objective: Objective, *, length: int, seed: int, order: bool, static: bool
    ) -> None:
        self.sequences, self.objective, self.seed, self.static = sequences, objective, seed, static
        self._length = length
        self._order = Order(len(sequences), seed) if order else None

    def __len__(self) -> int:
        return self._length

    def sequence(self, place: int) -> int:
        """Which sequence is at a place."""
        return self._order[place] if self._order else place

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        sequence = self.sequence(place)
        if self.static:
            return self.of_sequence(sequence)
        return {
            **self.objective.example(self.sequences[sequence], np.random.default_rng([self.seed, 4, place])),
            "sequence": sequence,
        }

    def of_sequence(self, sequence: int) -> Mapping[str, Any]:
        """The one example of a sequence, where damage depends on the sequence alone."""
        return {
            **self.objective.example(self.sequences[sequence], np.random.default_rng([self.seed, 3, sequence])),
            "sequence": sequence,
        }

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: `input_ids`, `attention_mask` (batch, tokens), `labels` (batch, tokens), `sequences` (batch,)."""
        import torch

        pads = {"input_ids": self.objective.pad, "labels": IGNORED}
        batch: dict[str, Any] = {}
        for name, pad in pads.items():
            width = max(len(one[name]) for one in examples)
            batch[name] = torch.tensor([one[name] + [pad] * (width - len(one[name])) for one in examples])
        lengths = torch.tensor([len(one["input_ids"]) for one in examples])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1])[None] < lengths[:, None]).long()
        batch["sequences"] = torch.tensor([one["sequence"] for one in examples])
        return batch
