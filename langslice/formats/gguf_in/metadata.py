"""What a cut does to the metadata of a GGUF file: every key is carried, renumbered or gathered, or stops the job.

Source of the keys: gguf-py/gguf/constants.py and src/llama-arch.cpp of llama.cpp 0.5.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from langslice.errors import CheckpointError, PlanError
from langslice.formats.gguf_in.container import (
    INTEGERS,
    STRING,
    UINT32,
    GgufSource,
    StoredValue,
    encoded,
    encoded_array,
)
from langslice.formats.gguf_in.tokenizer import ID_END, PREFIX
from langslice.structure.kept import Kept
from langslice.version import __version__

OWN = "langslice."
_LISTS = {f"{PREFIX}tokens", f"{PREFIX}scores", f"{PREFIX}token_type"}
_MERGES = f"{PREFIX}merges"
# Of the tokenizer, and without ids.
_CARRIED = re.compile(
    r"tokenizer\.(?:chat_template(?:\..+)?|chat_templates"
    r"|ggml\.(?:model|pre|add_(?:bos|eos|sep)_token|add_space_prefix|remove_extra_whitespaces|escape_whitespaces"
    r"|treat_whitespace_as_suffix|precompiled_charsmap|token_type_count|normalizer\.(?:lowercase|strip_accents)))"
)
_LEFT_OUT = {
    "tokenizer.huggingface.json": "the source's tokenizer.json, of all tokens, which llama.cpp does not read",
}
_SUSPICIOUS = re.compile(r".*token_?ids?")
# Of the architecture: what does not change with the number of layers.
_DEPTHLESS = re.compile(
    r"context_length|embedding_length|vocab_size|feed_forward_length|pooling_type|token_type_count|tensor_data_layout"
    r"|(?:final|attn)_logit_softcapping|(?:logit|residual|embedding)_scale|expert_(?:used_)?count|rope\..+"
    r"|attention\.(?:head_count|head_count_kv|key_length|value_length|layer_norm_epsilon|layer_norm_rms_epsilon|causal|scale"
    r"|sliding_window|clamp_kqv|max_alibi_bias)"
)
_BY_LAYER = re.compile(r"feed_forward_length|attention\.(?:head_count|head_count_kv|sliding_window_pattern)")


@dataclass(frozen=True)
class KeptParts:
    """What stays of a file.

    rows     (n,) int64 ascending old rows of the vocabulary; None where all stay
    merges   "left right" of what stays, where the tokenizer has merges
    layers   ascending old layers; None where all stay
    sizes    key without the architecture -> new number, where heads or neurons go
    structure  the same of layers, heads and neurons, as a plan says it; None where all stay
    """

    rows: np.ndarray | None = None
    merges: Sequence[bytes] = ()
    layers: tuple[int, ...] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    structure: Kept | None = None


def vocabulary_size(source: GgufSource) -> int:
    """Tokens of a file. Raises CheckpointError where it has none."""
    entry = source.entries.get(f"{PREFIX}tokens")
    if entry is None or entry.count is None or entry.kind != STRING:
        raise CheckpointError(f"{source.path} has no tokens", "name a GGUF of a language model or an encoder of text")
    return entry.count


def cut_metadata(source: GgufSource, kept: KeptParts) -> tuple[dict[str, bytes], dict[str, str]]:
    """Key -> encoded value of the result, and key -> why it is not in the result.

    Raises  CheckpointError for a key that a cut would make wrong and that is not understood; PlanError for an id that goes
    """
    rows, found, left_out = vocabulary_size(source), {}, {}
    for key, entry in source.entries.items():
        if key.startswith(OWN):
            continue
        if kept.rows is not None and key in _LEFT_OUT:
            left_out[key] = _LEFT_OUT[key]
            continue
        value = _of_vocabulary(source, key, entry, kept, rows) if kept.rows is not None else None
        if value is None and kept.layers is not None:
            value = _of_layers(source, key, entry, kept.layers)
        found[key] = source.raw[entry.start : entry.end] if value is None else value
    for name, size in kept.sizes.items():
        found[f"{source.architecture}.{name}"] = encoded(UINT32, size)
    return found | _own(source, kept), left_out


def _of_vocabulary(source: GgufSource, key: str, entry: StoredValue, kept: KeptParts, rows: int) -> bytes | None:
    """A value as the kept rows make it; None for one that they do not change."""
    stay = kept.rows
    if stay is None or _CARRIED.fullmatch(key):
        return None
    if key in _LISTS:
        return _gathered(source, key, entry, stay.tolist(), rows)
    if key == _MERGES:
        return encoded_array(STRING, kept.merges)
    if key.startswith(PREFIX) and key.endswith((ID_END, f"{ID_END}s")) and entry.kind in INTEGERS:
        return _renumbered(source, key, entry, stay, rows)
    if key == f"{source.architecture}.vocab_size":
        return encoded(entry.kind, len(stay))
    if key.startswith("tokenizer.") or _SUSPICIOUS.fullmatch(key):
        raise CheckpointError(
            f"{source.path}: {key} may hold token ids or tokens, and is not understood; nothing was written",
            "slice the model that the file was made from, and `langslice export` the slice",
        )
    if entry.count == rows:
        raise CheckpointError(
            f"{source.path}: {key} is a list of {rows:,}, one for each token, and is not understood; nothing was written"
        )
    return None


def _gathered(source: GgufSource, key: str, entry: StoredValue, stay: Sequence[int], whole: int) -> bytes:
    """A list with the items that stay."""
    if entry.count != whole:
        raise CheckpointError(f"{source.path}: {key} is a list of {entry.count}, expected {whole:,}")
    if entry.kind == STRING:
        spans = source.spans(key)
        return encoded_array(STRING, [source.raw[slice(*spans[old])] for old in stay])
    values = source.value(key)
    return encoded_array(entry.kind, [values[old] for old in stay])


def _renumbered(source: GgufSource, key: str, entry: StoredValue, stay: np.ndarray, rows: int) -> bytes:
    """One id, or a list of ids; what is no row of the vocabulary stands for no token, and stays."""

    def new(old: int) -> int:
        if not 0 <= old < rows:
            return old
        place = int(np.searchsorted(stay, old))
        if place == len(stay) or stay[place] != old:
            raise PlanError(f"{source.path}: {key} names token {old}, which is not kept", "keep it: --keep-tokens FILE")
        return place

    value = source.value(key)
    if entry.count is None:
        return encoded(entry.kind, new(value))
    return encoded_array(entry.kind, [new(old) for old in value])


def _of_layers(source: GgufSource, key: str, entry: StoredValue, stay: Sequence[int]) -> bytes | None:
    """A value as the kept layers make it; None for one that they do not change."""
    prefix, layers = f"{source.architecture}.", source.value(f"{source.architecture}.block_count")
    name = key.removeprefix(prefix)
    if name == "block_count":
        return encoded(entry.kind, len(stay))
    if entry.count == layers and key.startswith(prefix) and _BY_LAYER.fullmatch(name):
        return _gathered(source, key, entry, stay, layers)
    if entry.count == layers and not key.startswith(("tokenizer.", "general.")):
        raise CheckpointError(
            f"{source.path}: {key} is a list of {layers}, one for each layer, and is not understood; nothing was written"
        )
    if key.startswith(prefix) and not _DEPTHLESS.fullmatch(name) and not _BY_LAYER.fullmatch(name):
        raise CheckpointError(
            f"{source.path}: {key} may say something of single layers, and is not understood; nothing was written",
            "slice the vocabulary alone",
        )
    return None


def _own(source: GgufSource, kept: KeptParts) -> dict[str, bytes]:
    """What the result says of itself: where it comes from, and the old number of each of its rows and layers."""
    found = {f"{OWN}version": encoded(STRING, __version__), f"{OWN}source": encoded(STRING, source.path.name)}
    if kept.rows is not None:
        found[f"{OWN}kept_ids"] = encoded_array(UINT32, kept.rows.tolist())
    if kept.layers is not None:
        found[f"{OWN}kept_layers"] = encoded_array(UINT32, kept.layers)
    return found
