"""How a model reads text: ids, special tokens, padding, and what each position predicts.

Causal models read [start token, text], as evaluation/perplexity.py does; encoders read what their tokenizer makes of a text,
special tokens included; encoder-decoders read a text and write the same text (teacher forcing), for want of another side.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langslice.errors import CorpusError, ScoreError
from langslice.model.anatomy import Anatomy
from langslice.model.axes import find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.model.positions import longest_text
from langslice.tokenizer import SourceTokenizer, open_tokenizer

IGNORED = -100
_HIDDEN_SHARE = 0.15
_MASKS = ("[MASK]", "<mask>")
_TOKENS_PER_BATCH = 2048
# Logits of a batch in float32: a quarter of a gigabyte.
_LOGITS_PER_BATCH = 1 << 26


@dataclass(frozen=True)
class Batch:
    """Lines of about one length.

    inputs   arguments of the model
    masks    stack -> (lines, width) bool, True at real tokens
    labels   (lines, width) int64, the token that each position predicts, -100 where it predicts none; None where the
             loss is that of embeddings
    """

    inputs: Mapping[str, Any]
    masks: Mapping[str, Any]
    labels: Any

    @property
    def last_mask(self) -> Any:
        """Mask of the stack that comes last: the decoder's, or the only one."""
        return self.masks["decoder" if "decoder" in self.masks else next(iter(self.masks))]


@dataclass(frozen=True)
class Reader:
    """How one model reads.

    task        what its loss is of: "causal", "masked", "seq2seq" or "embedding"
    stacks      names of its stacks
    start       first token of a causal model, or of a decoder
    end         token that ends a text where the tokenizer itself adds none
    pad         token of padding
    hidden      token that hides another one; None where there is none
    rows        rows of the vocabulary
    max_tokens  longest line, special tokens included
    notes       what a user should know about how the text is read
    """

    task: str
    tokenizer: SourceTokenizer
    stacks: tuple[str, ...]
    start: int
    end: int
    pad: int
    hidden: int | None
    rows: int
    max_tokens: int
    notes: tuple[str, ...] = ()

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Ids of each line as the model reads them; [] for a line without any token of its own."""
        plain = self.tokenizer.encode(list(lines))
        if self.task == "causal":
            return [[self.start, *ids[: self.max_tokens - 1]] if ids else [] for ids in plain]
        backend = self.tokenizer.backend
        if backend is None:
            return [[*ids[: self.max_tokens - 1], self.end] if ids else [] for ids in plain]
        backend.no_padding()
        backend.enable_truncation(max_length=self.max_tokens)
        whole = [encoding.ids for encoding in backend.encode_batch(list(lines))]
        return [ids if own else [] for ids, own in zip(whole, plain, strict=True)]


def open_reader(checkpoint: Checkpoint, anatomy: Anatomy, model: Any, max_tokens: int) -> Reader:
    """Find out how an unmodified model reads text.

    Raises   ScoreError for a model that reads sound; TokenizerError as open_tokenizer does
    """
    if model.main_input_name != "input_ids":
        raise ScoreError(
            f"this model reads {model.main_input_name}, not text, so text cannot score it",
            hint="scores l1 and l2 come from the weights alone",
        )
    shapes = checkpoint.shapes
    rows = find_vocabulary_size(family_of(checkpoint.config), shapes)
    tokenizer = open_tokenizer(checkpoint.model_folder, model_type=checkpoint.config.get("model_type"), rows=rows)
    hidden = next((at for at, token in enumerate(tokenizer.tokens[:rows]) if token in _MASKS), None)
    task = _task(model, hidden)
    notes: tuple[str, ...] = ()
    if task == "embedding":
        why = "has no language model head" if model.get_output_embeddings() is None else "has no mask token"
        notes = (f"the model {why}: scores speak of its embedding (mean over tokens, length 1)",)
    config = anatomy.config
    ids = {key: _first_id(config, rows, *names) for key, names in _IDS.items()}
    longest = min(max_tokens, longest_text(config) or max_tokens)
    stacks = tuple(anatomy.layers)
    return Reader(task, tokenizer, stacks, ids["start" if len(stacks) == 1 else "decoder"], ids["end"], ids["pad"],
                  hidden, rows, longest, notes)  # fmt: skip


_IDS = {
    "start": ("bos_token_id", "eos_token_id"),
    "decoder": ("decoder_start_token_id", "bos_token_id", "eos_token_id"),
    "end": ("eos_token_id",),
    "pad": ("pad_token_id", "eos_token_id"),
}


def _first_id(config: Mapping[str, Any], rows: int, *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int) and config[name] < rows), 0)


def _task(model: Any, hidden: int | None) -> str:
    if model.get_output_embeddings() is None:
        return "embedding"
    if model.config.is_encoder_decoder:
        return "seq2seq"
    if type(model).__name__.endswith("ForMaskedLM"):
        return "masked" if hidden is not None else "embedding"
    return "causal"


def make_batches(
    reader: Reader, lines: Sequence[str], seed: int, *, predict: bool, tokens_per_batch: int = _TOKENS_PER_BATCH
) -> list[Batch]:
    """Lay out lines in batches of about equal length.

    seed     of the tokens that a masked model has to guess
    predict  hide these tokens, and mind the memory that logits take
    Raises   CorpusError when no line has a token
    """
    encoded = sorted((ids for ids in reader.encode(lines) if ids), key=len)
    if not encoded:
        raise CorpusError(
            f"the text tokenises to nothing: none of {len(lines)} sampled lines gives a token",
            hint="is it text that this model's tokenizer knows?",
        )
    if predict and reader.task != "embedding":
        tokens_per_batch = min(tokens_per_batch, max(_LOGITS_PER_BATCH // reader.rows, 1))
    rng = random.Random(seed)
    batches: list[Batch] = []
    group: list[list[int]] = []
    for ids in encoded:
        if group and (len(group) + 1) * len(ids) > tokens_per_batch:
            batches.append(_batch(reader, group, rng, predict))
            group = []
        group.append(ids)
    return [*batches, _batch(reader, group, rng, predict)]


def _batch(reader: Reader, group: Sequence[list[int]], rng: random.Random, predict: bool) -> Batch:
    import torch

    width = max(map(len, group))
    ids = torch.tensor([line + [reader.pad] * (width - len(line)) for line in group])
    mask = torch.tensor([[True] * len(line) + [False] * (width - len(line)) for line in group])
    labels = torch.where(mask, ids, IGNORED)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    if len(reader.stacks) > 1:
        start = torch.full_like(ids[:, :1], reader.start)
        inputs |= {
            "decoder_input_ids": torch.cat([start, ids[:, :-1]], dim=1),
            "decoder_attention_mask": mask.long(),
        }
    elif reader.task == "causal":
        labels = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], dim=1)
    elif reader.task == "masked" and predict:
        guessed = torch.tensor([_guessed(line, width, reader.tokenizer.special_ids, rng) for line in group])
        inputs["input_ids"] = torch.where(guessed, reader.hidden or 0, ids)
        labels = torch.where(guessed, ids, IGNORED)
    return Batch(inputs, dict.fromkeys(reader.stacks, mask), None if reader.task == "embedding" else labels)


def _guessed(line: Sequence[int], width: int, special: frozenset[int], rng: random.Random) -> list[bool]:
    """Positions to hide: 15% of the tokens that are not special, at least one."""
    own = [at for at, token in enumerate(line) if token not in special] or list(range(len(line)))
    chosen = set(rng.sample(own, max(round(_HIDDEN_SHARE * len(own)), 1)))
    return [at in chosen for at in range(width)]
