"""What each ONNX file of a model computes: a module, its inputs and outputs by name, and which of their sizes are open.

The names and shapes are those that transformers.js and Optimum use: a decoder takes the keys and values of each layer and
returns them longer; a decoder with an encoder also takes the encoder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from langslice.errors import ExportError
from langslice.model.transformers_classes import cache_of, cache_option

HIDDEN, LOGITS = "last_hidden_state", "logits"
Sizes = Mapping[int, str]
Pairs = list[tuple[torch.Tensor, torch.Tensor]]
_TEXT: Sizes = {0: "batch_size", 1: "sequence_length"}
_PAST: Sizes = {0: "batch_size", 2: "past_sequence_length"}
_SOURCE: Sizes = {0: "batch_size", 1: "encoder_sequence_length"}
_CROSS: Sizes = {0: "batch_size", 2: "encoder_sequence_length"}
# Of an encoder whose states are of one length, in the first step, where nothing is kept.
_CROSS_OF_SOUND: Sizes = {0: "batch_size", 2: "encoder_sequence_length_out"}
_ALL: Sizes = {0: "batch_size", 1: "total_sequence_length"}


@dataclass(frozen=True)
class Input:
    """One input of a graph.

    example  a value that the module is traced with
    sizes    axis -> name, of the axes whose size is open
    """

    name: str
    example: torch.Tensor
    sizes: Sizes


@dataclass(frozen=True)
class Graph:
    """What one ONNX file computes.

    module   takes the inputs in their order, and returns the outputs in theirs
    """

    module: torch.nn.Module
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]


class _Named(torch.nn.Module):
    """A model whose inputs are given in order."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def by_name(self, given: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs, each under its name."""
        return dict(zip(self.names, given, strict=True))


class _Encoder(_Named):
    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Hidden states (texts, tokens, hidden) of the last layer."""
        found: torch.Tensor = self.model(**self.by_name(given), return_dict=True).last_hidden_state
        return found


class _Decoder(_Named):
    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits (texts, tokens, vocabulary), and keys and values (texts, heads, all tokens, size) of each layer."""
        named = self.by_name(given)
        cache = cache_from(_taken(named))
        output = self.model(**named, **cache_option(self.model, cache), use_cache=True, return_dict=True)
        return (output.logits, *_flat(pairs_of(cache_of(output))))


class _WithEncoder(_Named):
    """The decoder of an encoder-decoder, on the encoder's hidden states; with no cache its first step."""

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits; keys and values of each layer, and of the encoder's states in the first step."""
        from transformers import DynamicCache, EncoderDecoderCache

        named = self.by_name(given)
        past = _taken(named)
        cache = EncoderDecoderCache(*(cache_from(part) if part else DynamicCache() for part in (past[::2], past[1::2])))
        output = self.model(
            decoder_input_ids=named["input_ids"],
            encoder_outputs=(named["encoder_hidden_states"],),
            attention_mask=named.get("encoder_attention_mask"),
            **cache_option(self.model, cache), use_cache=True, return_dict=True,
        )  # fmt: skip
        own, cross = (pairs_of(each) for each in (cache.self_attention_cache, cache.cross_attention_cache))
        return (
            output.logits,
            *_flat(own if past else [pair for both in zip(own, cross, strict=True) for pair in both]),
        )


def _taken(named: dict[str, torch.Tensor]) -> Pairs:
    """Take keys and values out of the inputs, in their order."""
    past = [named.pop(name) for name in list(named) if name.startswith("past_key_values.")]
    return list(zip(past[::2], past[1::2], strict=True))


def _flat(pairs: Pairs) -> list[torch.Tensor]:
    return [tensor for pair in pairs for tensor in pair]


def cache_from(pairs: Pairs) -> Any:
    """A cache that holds keys and values, each (texts, heads, tokens, size), of every layer."""
    from transformers import DynamicCache

    if "ddp_cache_data" in signature(DynamicCache).parameters:
        return DynamicCache(ddp_cache_data=pairs)
    return DynamicCache.from_legacy_cache(tuple(pairs))


def pairs_of(cache: Any) -> Pairs:
    """Keys and values of every layer of a cache.

    Raises  ExportError for a cache of something else
    """
    found: list[tuple[Any, Any]]
    if hasattr(cache, "layers"):
        found = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
    else:
        found = list(zip(getattr(cache, "key_cache", ()), getattr(cache, "value_cache", ()), strict=True))
    if not found or any(getattr(each, "ndim", 0) != 4 for pair in found for each in pair):
        raise ExportError(
            f"only models that cache keys and values of each layer are written as ONNX, this one has a {type(cache).__name__}"
        )
    return found


def encoder_graph(model: Any, *, source: torch.Tensor | None = None) -> Graph:
    """Hidden states of text, or of `source`: features of sound (pieces, bins, frames)."""
    if source is not None:
        given = (Input(model.main_input_name, source, {0: "batch_size"}),)
        return Graph(_Encoder(model, [given[0].name]), given, (HIDDEN,))
    ids, mask = _text(2, 6)
    inputs = [Input("input_ids", ids, _TEXT), Input("attention_mask", mask, _TEXT)]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs.append(Input("token_type_ids", torch.zeros_like(ids), _TEXT))
    return Graph(_Encoder(model, [one.name for one in inputs]), tuple(inputs), (HIDDEN,))


def decoder_graph(model: Any) -> Graph:
    """Logits of text that follows what is cached, which may be nothing."""
    ids, mask = _text(2, 3)
    with torch.no_grad():
        pairs = pairs_of(cache_of(model(input_ids=ids, use_cache=True, return_dict=True)))
    past = _past([torch.zeros(*key.shape[:2], 5, key.shape[3]) for key in _flat(pairs)], "")
    whole = torch.cat([torch.ones(2, 5, dtype=torch.int64), mask], 1)
    inputs = [Input("input_ids", ids, _TEXT), Input("attention_mask", whole, _ALL)]
    if "position_ids" in signature(type(model).forward).parameters:
        inputs.append(Input("position_ids", torch.arange(5, 8).repeat(2, 1), _TEXT))
    inputs += past
    return Graph(_Decoder(model, [one.name for one in inputs]), tuple(inputs), (LOGITS, *map(_present, past)))


def decoder_graphs(model: Any, hidden: torch.Tensor, *, masked: bool) -> tuple[Graph, Graph]:
    """The decoder of an encoder-decoder: its first step, and a later one that has keys and values.

    hidden  states (texts, tokens, hidden) that the encoder gives
    masked  whether the encoder's states are masked where texts were padded
    """
    ids = _text(2, 3)[0]
    open_sizes: Sizes = _SOURCE if masked else {0: "batch_size"}
    inputs = [Input("input_ids", ids, {**_TEXT, 1: "decoder_sequence_length"})]
    inputs.append(Input("encoder_hidden_states", hidden, open_sizes))
    if masked:
        inputs.insert(0, Input("encoder_attention_mask", torch.ones(hidden.shape[:2], dtype=torch.int64), _SOURCE))
    first = _WithEncoder(model, [one.name for one in inputs])
    with torch.no_grad():
        cached = first(*(one.example for one in inputs))[1:]
    own = [torch.zeros(*each.shape[:2], 5, each.shape[3]) for each in cached]
    examples = [each if at % 4 > 1 else own[at] for at, each in enumerate(cached)]
    past = _past(examples, "decoder encoder", cross=_CROSS if masked else _CROSS_OF_SOUND)
    outputs = (LOGITS, *map(_present, past))
    later = _WithEncoder(model, [one.name for one in (*inputs, *past)])
    kept = (LOGITS, *(_present(one) for one in past if ".decoder." in one.name))
    return Graph(first, tuple(inputs), outputs), Graph(later, (*inputs, *past), kept)


def _past(examples: Sequence[torch.Tensor], halves: str, cross: Sizes = _CROSS) -> list[Input]:
    """Keys and values in the order of the layers; of each half in turn where a layer has two."""
    names = [f"{half}." for half in halves.split()] or [""]
    found = []
    for at, example in enumerate(examples):
        layer, place = divmod(at, 2 * len(names))
        half, kind = names[place // 2], ("key", "value")[place % 2]
        found.append(Input(f"past_key_values.{layer}.{half}{kind}", example, cross if half == "encoder." else _PAST))
    return found


def _present(past: Input) -> str:
    return past.name.replace("past_key_values.", "present.")


def _text(texts: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (texts, tokens); the last text is shorter."""
    ids = torch.ones(texts, tokens, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[-1, tokens - tokens // 3 :] = 0
    return ids, mask
