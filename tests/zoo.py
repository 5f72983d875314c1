"""Tiny random checkpoints of every family, saved by unmodified transformers, with distinct axis sizes.

Sizes are chosen so that no two axes share a length: a gather along the wrong axis cannot pass by accident.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

VOCABULARY = 131
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 96,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
# Every second layer sees six tokens back, so that a layer taken for one of the other kind shows.
ALTERNATING = {**DECODER, "sliding_window": 6, "sliding_window_pattern": 2}
PLAIN = {key: value for key, value in DECODER.items() if key not in {"head_dim", "num_key_value_heads"}}
SEQ2SEQ = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 52,
    "max_position_embeddings": 96,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 44,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 96,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
VISION = {
    "hidden_size": 28,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

# model_type -> (auto class, configuration)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("AutoModelForMaskedLM", PLAIN),
    "roberta": ("AutoModelForMaskedLM", PLAIN),
    "xlm-roberta": ("AutoModelForMaskedLM", PLAIN),
    "camembert": ("AutoModelForMaskedLM", PLAIN),
    "xlm-roberta-xl": ("AutoModelForMaskedLM", PLAIN),
    "electra": ("AutoModelForMaskedLM", {**PLAIN, "embedding_size": 18}),
    "rembert": (
        "AutoModelForMaskedLM",
        {**PLAIN, "input_embedding_size": 18, "output_embedding_size": 30},
    ),
    "distilbert": (
        "AutoModelForMaskedLM",
        {
            "vocab_size": VOCABULARY,
            "dim": 24,
            "hidden_dim": 44,
            "n_layers": 3,
            "n_heads": 4,
            "max_position_embeddings": 96,
        },
    ),
    "deberta-v2": (
        "AutoModelForMaskedLM",
        {**PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "legacy": False},
    ),
    "modernbert": ("AutoModelForMaskedLM", {**PLAIN, "cls_token_id": 0, "sep_token_id": 2}),
    "eurobert": ("AutoModelForMaskedLM", {**DECODER, "mask_token_id": 3}),
    "gte": ("AutoModelForMaskedLM", {**PLAIN, "mask_token_id": 3}),
    "jina_embeddings_v3": ("AutoModelForMaskedLM", {**PLAIN, "mask_token_id": 3}),
    "nomic_bert": ("AutoModelForMaskedLM", {**PLAIN, "mask_token_id": 3}),
    "hyperclovax": ("AutoModelForCausalLM", DECODER),
    "hunyuan_v1_dense": ("AutoModelForCausalLM", DECODER),
    "exaone4": ("AutoModelForCausalLM", ALTERNATING),
    "albert": ("AutoModelForMaskedLM", {**PLAIN, "embedding_size": 18}),
    "t5": ("AutoModelForSeq2SeqLM", T5),
    "mt5": ("AutoModelForSeq2SeqLM", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "umt5": ("AutoModelForSeq2SeqLM", {**T5, "feed_forward_proj": "gated-gelu"}),
    "bart": ("AutoModelForSeq2SeqLM", SEQ2SEQ),
    "mbart": ("AutoModelForSeq2SeqLM", SEQ2SEQ),
    "m2m_100": ("AutoModelForSeq2SeqLM", SEQ2SEQ),
    "marian": ("AutoModelForSeq2SeqLM", SEQ2SEQ),
    "pegasus": ("AutoModelForSeq2SeqLM", SEQ2SEQ),
    "whisper": (
        "AutoModelForSpeechSeq2Seq",
        {
            **{key: value for key, value in SEQ2SEQ.items() if key != "max_position_embeddings"},
            "max_source_positions": 50,
            "max_target_positions": 96,
            "num_mel_bins": 16,
            "suppress_tokens": [5, 7],
            "begin_suppress_tokens": [9],
        },
    ),
    "xglm": (
        "AutoModelForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "d_model": 24,
            "ffn_dim": 44,
            "num_layers": 3,
            "attention_heads": 4,
            "max_position_embeddings": 96,
            "decoder_start_token_id": 2,
        },
    ),
    "bloom": (
        "AutoModelForCausalLM",
        {"vocab_size": VOCABULARY, "hidden_size": 24, "n_layer": 3, "n_head": 4, "pad_token_id": 3},
    ),
    "gpt2": ("AutoModelForCausalLM", GPT2),
    "gpt_neo": (
        "AutoModelForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 24,
            "num_layers": 3,
            "attention_types": [[["global", "local", "global"], 1]],
            "num_heads": 4,
            "intermediate_size": 44,
            "max_position_embeddings": 96,
            "bos_token_id": 2,
            "eos_token_id": 2,
        },
    ),
    "opt": (
        "AutoModelForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 24,
            "ffn_dim": 44,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 96,
            "word_embed_proj_dim": 24,
        },
    ),
    "gpt_neox": ("AutoModelForCausalLM", PLAIN),
    "gptj": (
        "AutoModelForCausalLM",
        {**GPT2, "rotary_dim": 4},
    ),
    "falcon": (
        "AutoModelForCausalLM",
        {**{k: v for k, v in PLAIN.items() if k != "intermediate_size"}, "ffn_hidden_size": 44},
    ),
    "llama": ("AutoModelForCausalLM", DECODER),
    "mistral": ("AutoModelForCausalLM", DECODER),
    "ministral": ("AutoModelForCausalLM", DECODER),
    "qwen2": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6, "tie_word_embeddings": True}),
    "qwen3": ("AutoModelForCausalLM", DECODER),
    "qwen3_moe": ("AutoModelForCausalLM", {**DECODER, **MOE}),
    "mixtral": ("AutoModelForCausalLM", {**DECODER, "num_local_experts": 4}),
    "gemma": ("AutoModelForCausalLM", DECODER),
    "gemma2": ("AutoModelForCausalLM", ALTERNATING),
    "gemma3_text": ("AutoModelForCausalLM", ALTERNATING),
    "cohere": ("AutoModelForCausalLM", DECODER),
    "cohere2": ("AutoModelForCausalLM", ALTERNATING),
    "phi": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6, "partial_rotary_factor": 2 / 3}),
    "phi3": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "granite": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "smollm3": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "olmo": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "olmo2": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "olmo3": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "apertus": ("AutoModelForCausalLM", DECODER),
    "stablelm": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "starcoder2": ("AutoModelForCausalLM", {**DECODER, "head_dim": 6}),
    "glm4": ("AutoModelForCausalLM", DECODER),
    "deepseek_v3": (
        "AutoModelForCausalLM",
        {
            **DECODER,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 20,
            "q_lora_rank": 14,
            "kv_lora_rank": 12,
            "qk_nope_head_dim": 6,
            "qk_rope_head_dim": 4,
            "v_head_dim": 10,
            "first_k_dense_replace": 1,
        },
    ),
    "gemma3n_text": (
        "AutoModelForCausalLM",
        {
            **DECODER,
            "intermediate_size": [44, 44, 44],
            "num_hidden_layers": 3,
            "num_kv_shared_layers": 1,
            "layer_types": ["full_attention", "full_attention", "full_attention"],
            "vocab_size_per_layer_input": 121,
            "hidden_size_per_layer_input": 7,
            "laurel_rank": 5,
            "activation_sparsity_pattern": [0.0, 0.0, 0.0],
        },
    ),
    "gemma3": (
        "AutoModelForImageTextToText",
        {
            "text_config": {**ALTERNATING, "model_type": "gemma3_text"},
            "vision_config": {**VISION, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            "boi_token_index": 5,
            "eoi_token_index": 6,
            "image_token_index": 7,
        },
    ),
    "qwen2_vl": (
        "AutoModelForImageTextToText",
        {
            "text_config": {
                **DECODER,
                "head_dim": 6,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]},
            },
            "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 24, "num_heads": 2, "mlp_ratio": 2},
            "image_token_id": 5,
            "video_token_id": 6,
            "vision_start_token_id": 7,
            "vision_end_token_id": 8,
        },
    ),
}


# First version of transformers (of 4.50, 4.55 and 5, which were tried) in which some families can what others always could.
Since = Mapping[str, tuple[int, int]]
# Layers of different sizes run; before, the class sizes them, or their cache, by config.json alone.
UNEVEN_LAYERS: Since = {"modernbert": (5, 0), "gemma2": (4, 55), "gemma3_text": (4, 55), "cohere2": (4, 55)}
# The cache can be shared.
SHARED_CACHE: Since = {"gemma2": (4, 55), "gemma3_text": (4, 55), "cohere2": (4, 55)}
# Tokens beyond the rows of the per-layer table can be read.
SHORT_PER_LAYER_TABLE: Since = {"gemma3n_text": (5, 0)}


def lacks(model_type: str, since: Since) -> bool:
    """Whether the installed transformers is too early for what a family can in later versions."""
    import transformers

    installed = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return installed < since.get(model_type, (0, 0))


def build(model_type: str, folder: Path, *, dtype: str = "float32", **changes: Any) -> Path:
    """Save a random checkpoint of a family, every tensor non-zero so that a lost row shows."""
    import torch
    import transformers

    auto_class, configuration = FAMILIES[model_type]
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no model type `{model_type}`")
    if "text_config" in configuration and "text_config" not in transformers.CONFIG_MAPPING[model_type].sub_configs:
        # Versions before 4.52 keep the fields of Qwen2-VL's text model next to those of the image tower.
        configuration = {**configuration["text_config"], **configuration}
        del configuration["text_config"]
    if model_type == "deberta-v2" and transformers.__version__.startswith("4."):
        configuration = {**configuration, "legacy": True}  # the newer head of version 4 is built but cannot be run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(model_type, **{**configuration, **changes})
        torch.manual_seed(sum(map(ord, model_type)))
        model = getattr(transformers, auto_class).from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.to(getattr(torch, dtype)).eval().save_pretrained(folder)
    return folder


def add_tokenizer(folder: Path, *, pieces: int = 125) -> Path:
    """Give a zoo model a Unigram tokenizer in which Latin and Hangul pieces alternate, so that kept ids are scattered."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    specials = ["<s>", "<pad>", "</s>", "<unk>", *[f"<extra_{number}>" for number in range(6)]]
    latin = [
        "▁",
        *"abcdefghijklmnopqrstuvwxyz",
        *[f"▁{a}{b}" for a in "lmnst" for b in "aeiou"],
        "ing",
        "ed",
        "▁the",
        "▁and",
    ]
    hangul = [chr(0xAC00 + 28 * number) for number in range(60)]
    mixed = [piece for pair in zip(latin, hangul, strict=False) for piece in pair]
    vocabulary = [(token, 0.0) for token in specials]
    vocabulary += [(piece, -2.0 - 0.05 * rank) for rank, piece in enumerate(mixed)]
    tokenizer = Tokenizer(models.Unigram(vocabulary[:pieces], unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}'
    )
    return folder
