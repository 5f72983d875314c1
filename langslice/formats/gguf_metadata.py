"""What a GGUF file says of a model beside tensors and tokens: sizes, positions, attention, pooling."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import ExportError
from langslice.formats.families import GgufFamily, head_size
from langslice.model.modules import read_modules

# Of llama3's scaling, where config.json does not say (transformers' own defaults).
_POOLINGS = {"mean": "MEAN", "cls": "CLS", "lasttoken": "LAST"}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def write_metadata(writer: Any, family: GgufFamily, config: Mapping[str, Any], folder: Path) -> None:
    """Hand a `gguf.GGUFWriter` what it needs to know of a model.

    folder   of the model; modules.json in it says how token vectors become one
    Raises   ExportError for positions or pooling that llama.cpp does not compute
    """
    from gguf import PoolingType

    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(positions(config, family))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    if family.encoder:
        writer.add_causal_attention(False)
        writer.add_layer_norm_eps(config.get("layer_norm_eps", 1e-12))
        writer.add_token_type_count(config.get("type_vocab_size", 2))
        pooling = pooling_of(folder)
        if pooling is not None:
            writer.add_pooling_type(PoolingType[_POOLINGS[pooling]])
        return
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(head_size(config))
    _write_rope(writer, config)
    if family.full_every:
        writer.add_sliding_window(config["sliding_window"])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def positions(config: Mapping[str, Any], family: GgufFamily) -> int:
    """How many positions a text may have."""
    return int(config["max_position_embeddings"]) - first_position(config, family)


def first_position(config: Mapping[str, Any], family: GgufFamily) -> int:
    """The row of the first position in the table of positions."""
    return 1 + int(config["pad_token_id"]) if family.offset else 0


def rope_of(config: Mapping[str, Any], kind: str = "full_attention") -> dict[str, Any]:
    """Settings of rotary positions, from either layout of config.json; `kind` where kinds of layers have their own."""
    given = config.get("rope_parameters") or {}
    if given:
        return dict(given.get(kind, given))
    scaling = dict(config.get("rope_scaling") or {})
    scaling.setdefault("rope_type", scaling.pop("type", "default"))
    theta = config.get("rope_local_base_freq") if kind == "sliding_attention" else config.get("rope_theta", 10000.0)
    return {**scaling, "rope_theta": theta}


def rope_factors(config: Mapping[str, Any]) -> np.ndarray | None:
    """What each frequency is divided by for the positions of Llama 3, (size,) float32, half a head's; None for others.

    Source: "Llama 3.1" positions as transformers computes them (`_compute_llama3_parameters`).
    """
    rope = rope_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    factor, low, high, length = (rope.get(name, default) for name, default in _LLAMA3.items())
    size = head_size(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    turns = length * frequencies / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _write_rope(writer: Any, config: Mapping[str, Any]) -> None:
    from gguf import RopeScalingType

    rope = rope_of(config)
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise ExportError(
            f"positions of the kind {kind} are not written",
            "pass --converter with the path of llama.cpp's convert_hf_to_gguf.py",
        )
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    local = rope_of(config, "sliding_attention").get("rope_theta")
    if config.get("model_type") == "gemma3_text" and local:
        writer.add_rope_freq_base_swa(float(local))


def pooling_of(folder: Path) -> str | None:
    """How token vectors become one: "mean", "cls" or "lasttoken", as sentence-transformers' modules say; None without them.

    Raises  ExportError for a module, or a way, that llama.cpp has not
    """
    for module in read_modules(folder):
        if module.kind in ("Transformer", "Normalize"):
            continue
        if module.kind != "Pooling":
            raise ExportError(f"llama.cpp has no module {module.kind}, which follows this encoder")
        said = json.loads((folder / module.path / "config.json").read_text(encoding="utf-8"))
        chosen = [said["pooling_mode"]] if isinstance(said.get("pooling_mode"), str) else []
        chosen += [
            name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for name, value in said.items()
            if name.startswith("pooling_mode_") and value is True
        ]
        if len(chosen) != 1 or chosen[0] not in _POOLINGS:
            raise ExportError(f"llama.cpp cannot pool as {module.path}/config.json says: {', '.join(chosen)}")
        return str(chosen[0])
    return None
