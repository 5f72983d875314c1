"""What a model answers to one text: how it goes on, or which known sentences lie nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from langslice.errors import TaskError
from langslice.evaluation.embedding import embed
from langslice.evaluation.generation import generate
from langslice.evaluation.loaded_model import Loaded, encode_texts

_NEAREST: Final = 3


@dataclass(frozen=True)
class ModelAnswer:
    """What a model answers.

    kind   "continuation" of a text, "output" of an encoder-decoder, or "nearest" sentences
    texts  what it wrote, alone; or the nearest sentences, the nearest first
    cosines  of the nearest sentences with the text; empty for what is written
    """

    kind: str
    texts: tuple[str, ...]
    cosines: tuple[float, ...] = ()


def answer(model: Loaded, text: str, *, new_tokens: int = 24, among: Sequence[str] = ()) -> ModelAnswer:
    """Ask a model, greedily and without sampling, so that source and slice can be compared.

    new_tokens  most tokens to write
    among       sentences to look for the nearest in, for an encoder
    Raises      TaskError for a text without a token, or one that is longer than the model reads
    """
    if model.kind == "encoder":
        return _nearest(model, text, among)
    prompt = encode_texts(model, [text])[0]
    room = None if model.max_length is None else model.max_length - (new_tokens if model.kind == "causal" else 0)
    if not prompt:
        raise TaskError("the text has no token", "type a word or two")
    if room is not None and len(prompt) > room:
        raise TaskError(f"the text has {len(prompt):,} tokens, and the model reads {room:,}", "type a shorter text")
    written = generate(model, [prompt], new_tokens=new_tokens)[0]
    said = str(model.tokenizer.decode(written, skip_special_tokens=True))
    return ModelAnswer("continuation" if model.kind == "causal" else "output", (said,))


def _nearest(model: Loaded, text: str, among: Sequence[str]) -> ModelAnswer:
    known = [each for each in dict.fromkeys(among) if each != text]
    vectors = embed(model.model, [text, *known])
    cosines = vectors[1:] @ vectors[0]
    best = sorted(range(len(known)), key=lambda at: -cosines[at])[:_NEAREST]
    return ModelAnswer("nearest", tuple(known[at] for at in best), tuple(float(cosines[at]) for at in best))
