"""How peft names the tensors of a LoRA, and along which side of the weight each runs.

Source: peft, the names in `adapter_model.safetensors`.
"""

from __future__ import annotations

from collections.abc import Mapping

ROOT = "base_model.model."
# Ending of an adapter tensor's name -> which side of the weight its dimensions run along ("rank": none).
FACTORS: Mapping[str, tuple[str, ...]] = {
    ".lora_A.weight": ("rank", "in"),
    ".lora_B.weight": ("out", "rank"),
    ".lora_B.bias": ("out",),
    ".lora_embedding_A": ("rank", "out"),
    ".lora_embedding_B": ("in", "rank"),
    ".lora_magnitude_vector": ("out",),
    ".lora_magnitude_vector.weight": ("out",),
}
# Settings of adapter_config.json that count or name layers.
LAYER_SETTINGS = ("layers_to_transform", "rank_pattern", "alpha_pattern", "layer_replication")
