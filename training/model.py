"""The shape of langslice-mini, its optimisers, and the folder that unmodified transformers loads.

The shape is small on purpose: on two processor cores a larger model would see too little text. Query heads times
head_dim is not the hidden size (8 x 32 against 192), as in several current families.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from bpe import END, END_ID, PAD, PAD_ID
from tokenizers import Tokenizer
from torch import nn

SHAPE = {
    "vocab_size": 12288,
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 512,
    "max_position_embeddings": 512,
}
SMOKE_SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 160,
    "max_position_embeddings": 128,
}
INITIAL_RANGE = 0.02


def model_config(shape: dict[str, int]) -> dict[str, Any]:
    """Write the config.json of a shape, in keys that transformers 4.50 and 5 both read."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": INITIAL_RANGE,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
        "use_cache": True,
        "torch_dtype": "float16",
    }


def build_model(shape: dict[str, int], seed: int) -> nn.Module:
    """Build the model in float32 with seeded random weights; what writes to the residual stream starts smaller."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    options = {key: value for key, value in model_config(shape).items() if key not in ("torch_dtype", "model_type")}
    model = LlamaForCausalLM(LlamaConfig(**options, attn_implementation="eager")).float()
    # Eager: on a processor in bfloat16 it was faster than the fused kernel at these lengths.
    scale = (2 * shape["num_hidden_layers"]) ** -0.5
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data.mul_(scale)
    return model


def build_optimisers(
    model: nn.Module, matrix_rate: float, other_rate: float, decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding (which is the head too) and the norms.

    matrix_rate   peak learning rate of Muon, in units that match AdamW's step size
    other_rate    peak learning rate of AdamW
    decay         weight decay of the matrices
    Source        Jordan et al. 2024 (Muon) as in torch.optim.Muon; Liu et al. 2025, arXiv 2502.16982 (step size)
    """
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or ".layers." not in name]
    muon = torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [muon, adam]


def window_loss(model: nn.Module, batch: torch.Tensor, bfloat16: bool) -> torch.Tensor:
    """Mean cross-entropy of next tokens, in nats.

    batch    (windows, length) int64; the last token of each is target only
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def export_model(model: nn.Module, shape: dict[str, int], tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, float16 weights and tokenizer as a folder that unmodified transformers loads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone
    _write_json(folder / "config.json", model_config(shape))
    ids = {"bos_token_id": END_ID, "eos_token_id": END_ID, "pad_token_id": PAD_ID}
    _write_json(folder / "generation_config.json", {**ids, "max_length": shape["max_position_embeddings"]})
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": shape["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    """Write one JSON file, two spaces deep, with a last line end."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
