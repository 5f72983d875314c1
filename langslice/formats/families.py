"""Which families langslice writes as GGUF itself, and what llama.cpp takes for granted of each.

Read from llama.cpp 0.5.0 (src/models, conversion); a configuration that says something else is refused, because llama.cpp would
load the file and compute something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langslice.errors import ExportError

_BERT_DROPPED = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")


@dataclass(frozen=True)
class GgufFamily:
    """One model type.

    architecture  llama.cpp's name of it
    activation    the one that llama.cpp computes with
    encoder       attends to both sides, and gives vectors
    permuted      rows of query and key are interleaved, as in the first Llama's own files
    shifted       norms are stored as 1 + weight
    full_every    every so many layers one sees all positions; 0 where all do
    square        heads times their size must be the hidden size
    offset        positions begin behind the padding token's id
    dropped       beginnings of the names of tensors that llama.cpp has no use for
    """

    architecture: str
    activation: str
    encoder: bool = False
    permuted: bool = False
    shifted: bool = False
    full_every: int = 0
    square: bool = False
    offset: bool = False
    dropped: tuple[str, ...] = ()


FAMILIES = {
    "llama": GgufFamily("llama", "silu", permuted=True),
    "mistral": GgufFamily("llama", "silu", permuted=True),
    "qwen2": GgufFamily("qwen2", "silu", square=True),
    "qwen3": GgufFamily("qwen3", "silu"),
    "gemma3_text": GgufFamily("gemma3", "gelu_pytorch_tanh", shifted=True, full_every=6),
    "bert": GgufFamily("bert", "gelu", encoder=True, square=True, dropped=_BERT_DROPPED),
    "xlm-roberta": GgufFamily("bert", "gelu", encoder=True, square=True, offset=True, dropped=_BERT_DROPPED),
}


def gguf_family(config: Mapping[str, Any]) -> GgufFamily:
    """The row of a configuration's model type.

    Raises  ExportError where there is none, or the configuration says what llama.cpp does not compute
    """
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise ExportError(
            f"langslice does not write GGUF files of model type {model_type}\n  it writes {', '.join(FAMILIES)}",
            "pass --converter with the path of llama.cpp's convert_hf_to_gguf.py",
        )
    for fault in _faults(config, family):
        raise ExportError(f"llama.cpp would compute something else than this {model_type}: {fault}")
    return family


def _faults(config: Mapping[str, Any], family: GgufFamily) -> list[str]:
    """What a configuration says and llama.cpp does not do."""
    faults = []
    activation = config.get("hidden_act") or config.get("hidden_activation") or family.activation
    if activation != family.activation:
        faults.append(f"its activation is {activation}, llama.cpp's is {family.activation}")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    if family.square and head_size(config) * heads != hidden:
        faults.append(f"{heads} heads of {head_size(config)} are not the hidden size, {hidden}")
    if family.encoder and (config.get("position_embedding_type") or "absolute") != "absolute":
        faults.append(f"its positions are {config['position_embedding_type']}")
    if family.encoder and config.get("is_decoder"):
        faults.append("it is a decoder")
    if config.get("use_sliding_window"):
        faults.append("its attention has a sliding window")
    if config.get("use_bidirectional_attention"):
        faults.append("it attends to both sides")
    if config.get("attn_logit_softcapping") is not None:
        faults.append("it caps the logits of its attention")
    if config.get("sliced_shapes") is not None:
        faults.append("its layers are of different sizes")
    return faults + (_gemma_faults(config, family) if family.full_every else [])


def _gemma_faults(config: Mapping[str, Any], family: GgufFamily) -> list[str]:
    layers, every = config["num_hidden_layers"], family.full_every
    expected = ["full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(layers)]
    kinds = config.get("layer_types")
    if kinds is None and config.get("sliding_window_pattern", every) == every:
        kinds = expected
    faults = []
    if kinds != expected:
        faults.append(f"llama.cpp lets every {every}th layer see all positions, config.json says {kinds}")
    if config.get("query_pre_attn_scalar", 256) != head_size(config) or layers == 62:
        faults.append("its attention is scaled otherwise than by the size of a head")
    return faults


def head_size(config: Mapping[str, Any]) -> int:
    """Components of a head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
