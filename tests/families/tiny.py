"""A tiny random model of any type that the installed transformers can build, with the packaged tokenizer.

Most types take one generic shrinking of their default configuration; what their validators want next to it is in OWN.
Sizes are small and as different as heads and halves allow, so that axes can be told apart.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from langslice.mini import mini_model_path

VOCABULARY = 12288  # of the packaged tokenizer
_HIDDEN, _HEADS, _HEAD, _NEURONS, _LAYERS = 32, 4, 8, 56, 4
# Field -> value, wherever it is.
SMALL: dict[str, Any] = {
    **dict.fromkeys(
        ("vocab_size", "n_words", "src_vocab_size", "tgt_vocab_size", "decoder_vocab_size", "vocab_size_per_layer_input"),
        VOCABULARY,
    ),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "lru_width"), _HIDDEN),
    **dict.fromkeys(("attention_hidden_size", "word_embed_proj_dim", "embedding_size", "embedding_dim"), _HIDDEN),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), _HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), _HEADS),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads", "swa_num_attention_heads"), _HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "kv_n_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "kv_channels", "attention_head_size", "swa_head_dim", "dim_head"), _HEAD),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "d_inner", "dff", "ffn_hidden_size"), _NEURONS),
    **dict.fromkeys(("dim_ff", "mlp_dim", "encoder_ffn_dim", "decoder_ffn_dim", "feed_forward_size"), _NEURONS),
    **dict.fromkeys(("dense_intermediate_size", "intermediate_size_mlp", "hidden_dim"), _NEURONS),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), 24),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size", "shared_experts_intermediate_size"), 40),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "num_blocks"), _LAYERS),
    **dict.fromkeys(("encoder_layers", "num_encoder_layers", "speech_encoder_layers"), 2),
    "decoder_layers": 3,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 256),
    **dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings", "max_target_positions"), 256),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "attention_window"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 12),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), _HEAD),
    "qk_head_dim": 2 * _HEAD,
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 6),
    "entity_vocab_size": 60,
    "entity_emb_size": 20,
    "encoder_hash_byte_group_vocab": 100,
    "vision_output_dim": _HIDDEN,
    **dict.fromkeys(("condition_dim", "text_hidden_size", "projection_dim"), _HIDDEN),
    "hidden_size_global": _HIDDEN,
    "out_hidden_size": _HIDDEN,
    "image_size": 28,
    "patch_size": 14,
    "depth": 2,
}  # fmt: skip
# Model type -> fields of its own: what its validators want, or None for "not given".
_LISTED = ["linear_attention", "full_attention"] * 2
# fmt: off
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": "auto", "attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "rope_parameters": {
        kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": _HIDDEN, "ffn_hidden_size": _NEURONS, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_text": {
        "num_key_value_heads": _HEADS,
        "per_layer_config": {layer: {"kv_lora_rank": 10, "head_dim": 16} for layer in "23"},
    },
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 1, "mask_token_id": 5, "position_embedding_type": "rotary"},
    "esmc": {"num_key_value_heads": _HEADS},
    "gemma3n_text": {
        "num_kv_shared_layers": 1,
        "layer_types": ["full_attention"] * _LAYERS,
        "intermediate_size": _NEURONS,
        "hidden_size_per_layer_input": 7,
        "laurel_rank": 5,
        "activation_sparsity_pattern": [0.0] * _LAYERS,
    },
    "gemma4_text": {"hidden_size_per_layer_input": 7, "per_layer_config": {"3": {"head_dim": 16}}},
    "gemma4_unified_text": {"per_layer_config": {"3": {"head_dim": 16}}},
    "glm4v_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    "glm4v_moe_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
                                           "mrope_section": [1, 1, 0]}},
    "glm5_next_text": {"num_key_value_heads": _HEADS},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": "auto", "layer_types": ["mamba", "attention"] * 2},
    **{name: {"head_dim": _HEAD, "num_key_value_heads": 2} for name in (
        "hunyuan_v1_dense", "hunyuan_v1_moe", "ministral", "nemotron")},
    **{name: {"unpadded_vocab_size": VOCABULARY} for name in ("inkling2_text", "inkling2_loop_text")},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "neomme": {
        "head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "per_layer_config": {},
        "embedding_rank": 10,
    },
    "nllb-moe": {"encoder_sparse_step": 2, "decoder_sparse_step": 2, "expert_capacity": 64},
    "perceiver": {
        "d_latents": _HIDDEN,
        "num_latents": 8,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
    },
    "prophetnet": {"num_encoder_layers": 3, "num_decoder_layers": 3},
    **{name: {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}} for name in (
        "glm_ocr_text", "paddleocr_vl_text", "qwen2_5_omni_text", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text")},
    "qwen4_exp_text": {"layer_types": _LISTED, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": _HEAD,
                       "indexer_budget": 8, "indexer_compress_ratio": 2, "hc_lowrank": 10, "linear_num_key_heads": 2,
                       "linear_num_value_heads": 4, "linear_key_head_dim": _HEAD, "linear_value_head_dim": _HEAD},
    "reformer": {
        "is_decoder": False,
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [12, 20],
        "attn_layers": ["local"] * 4,
        "local_attn_chunk_length": 16,
    },
    "rembert": {"input_embedding_size": 18, "output_embedding_size": 30},
    "roc_bert": {"pronunciation_embed_dim": 12, "shape_embed_dim": 14, "shape_vocab_size": 40},
    **{name: {"num_key_value_heads": _HEADS} for name in (
        "axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "longcat_flash",
        "minicpm3", "mistral4", "mistral4_text", "mistral_large4_text", "sarvam_mla", "youtu")},
    **{name: {"rotary_dim": 4} for name in ("codegen", "gptj")},
    **{name: {"default_language": "en_XX"} for name in ("xmod",)},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 6, "mamba_d_state": 6},
    "kimi_linear": {"layer_types": _LISTED, "mlp_layer_types": ["dense"] + ["sparse"] * 3, "linear_num_heads": 4,
                    "linear_head_dim": _HEAD, "num_key_value_heads": _HEADS},
    "bailing_hybrid": {"layer_group_size": 2, "linear_num_heads": 4, "linear_head_dim": _HEAD,
                       "num_key_value_heads": _HEADS},
    "deepseek_v2": {"num_key_value_heads": _HEADS, "num_experts_per_tok": 2},
    "xlstm": {"ffn_round_up_to_multiple_of": 8, "qk_dim_factor": 1.0},
    "zamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "n_mamba_heads": 2,
        "mamba_dt_rank": 6,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
    },
    "zamba2": {"attention_head_dim": 16, "attention_hidden_size": 64, "n_mamba_heads": 4, "mamba_headdim": 16,
               "layer_types": ["mamba", "mamba", "hybrid", "mamba", "hybrid", "mamba"], "num_hidden_layers": 6,
               "hybrid_layer_ids": [2, 4], "num_mem_blocks": 1},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 12},
}
# fmt: on
_IDS = ("token_id", "token_index", "index")
_LARGEST = 100_000_000  # parameters
_LOW = 100  # no model is built with fewer rows: higher ids become low ones


def tiny_config(model_type: str, tokens: int = VOCABULARY, **changes: Any) -> Any:
    """A configuration of a type, shrunk; raises what its class raises."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = transformers.CONFIG_MAPPING[model_type]
        fields = _with_rows({**shrunk(kind().to_dict()), **OWN.get(model_type, {}), **changes}, tokens)
        return kind(**{name: value for name, value in fields.items() if value is not None})


def _with_rows(fields: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Fields with another number of rows in the place of the tokenizer's."""
    return {
        name: _with_rows(value, tokens) if isinstance(value, dict) else tokens if value == VOCABULARY else value
        for name, value in fields.items()
    }


def shrunk(document: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration the fields that change: sizes, ids beyond the vocabulary, and sub-configurations."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict) and "model_type" in value:
            found[name] = {"model_type": value["model_type"], **shrunk(value)}
            found[name] |= OWN.get(value["model_type"], {})
            found[name] = {key: one for key, one in found[name].items() if one is not None}
        elif isinstance(value, dict) and "mrope_section" in value:
            found[name] = {**value, "mrope_section": [2, 1, 1]}  # halves of a head for time, height and width
        elif name in SMALL and (type(value) is int or value is None):
            if value is not None:
                found[name] = SMALL[name]
        elif _is_id(name) and type(value) is int and value >= _LOW:
            found[name] = 3 + sum(map(ord, name)) % 90
        elif _is_id(name) and isinstance(value, list) and value and all(type(one) is int for one in value):
            found[name] = [3 + at for at, _ in enumerate(value)]
    return found


def _is_id(name: str) -> bool:
    return name.endswith((*_IDS, "_token_ids", "suppress_tokens"))


def _own_half(model_type: str) -> dict[str, int]:
    import transformers

    fields = transformers.CONFIG_MAPPING[model_type]().to_dict()
    return {"encoder_layers": SMALL["decoder_layers"]} if "encoder_layers" in fields else {}


def build(model_type: str, class_name: str, folder: Path, *, tokens: int = VOCABULARY, **changes: Any) -> Path:
    """Save a tiny random checkpoint of a class, every tensor non-zero so that a lost row shows.

    tokens   rows of its vocabulary; with all of the packaged tokenizer it gets that, with fewer none
    """
    import torch
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if class_name == "ReformerModelWithLMHead":
            changes = {"is_decoder": True, **changes}
        if class_name.endswith("ForCausalLM"):  # of an encoder-decoder whose cache is counted by the other half
            changes = {**_own_half(model_type), **changes}
        config = tiny_config(model_type, tokens, **changes)
        with torch.device("meta"):
            size = sum(one.numel() for one in getattr(transformers, class_name)(config).parameters())
        if size > _LARGEST:
            raise ValueError(f"even shrunk it has {size / 1e6:.0f} million parameters")
        torch.manual_seed(sum(map(ord, class_name)))
        model = getattr(transformers, class_name)._from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.to(torch.float32).eval().save_pretrained(folder)
    for name in () if tokens < VOCABULARY else ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mini_model_path() / name, folder)
    return folder
