"""Write a checkpoint with Qwen3-8B shapes and random bytes, in any number of layers.

    python benchmarks/make_checkpoint.py OUT --gigabytes 16

36 layers make 16.4 GB in five shards, as the published model has; fewer layers make smaller ones with the same tables.
The weights are noise: this is for measuring how bytes move, not what they mean.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
from pathlib import Path

VOCAB, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 151_936, 4096, 12_288, 32, 8, 128, 36
SHARD_BYTES = 4_000_000_000
NOISE_BYTES = 64 << 20

Shapes = dict[str, tuple[int, ...]]


def layer_shapes(layer: int) -> Shapes:
    """Tensors of one decoder layer."""
    prefix = f"model.layers.{layer}."
    return {
        prefix + "input_layernorm.weight": (HIDDEN,),
        prefix + "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        prefix + "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        prefix + "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
        prefix + "post_attention_layernorm.weight": (HIDDEN,),
        prefix + "self_attn.k_norm.weight": (HEAD_DIM,),
        prefix + "self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
        prefix + "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
        prefix + "self_attn.q_norm.weight": (HEAD_DIM,),
        prefix + "self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
        prefix + "self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
    }


def all_shapes(layers: int, vocab: int) -> Shapes:
    """Tensors of the whole model, in the order in which they are written."""
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, HIDDEN)}
    for layer in range(layers):
        shapes.update(layer_shapes(layer))
    shapes["model.norm.weight"] = (HIDDEN,)
    shapes["lm_head.weight"] = (vocab, HIDDEN)
    return shapes


def size_of(shape: tuple[int, ...]) -> int:
    """Bytes of a bfloat16 tensor."""
    size = 2
    for length in shape:
        size *= length
    return size


def scaled(gigabytes: float) -> tuple[int, int]:
    """Layers and vocabulary for a wanted size; the tables shrink with it, so that the work grows in proportion."""
    share = gigabytes / 16
    return max(round(LAYERS * share), 1), max(round(VOCAB * share), 1024)


def split(shapes: Shapes) -> list[Shapes]:
    """Cut the tensors into shards of at most SHARD_BYTES, as save_pretrained does."""
    shards: list[Shapes] = [{}]
    size = 0
    for name, shape in shapes.items():
        if size and size + size_of(shape) > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += size_of(shape)
    return shards


def write_shard(path: Path, shapes: Shapes, noise: bytes) -> None:
    """Write one safetensors file full of noise; without noise, a hole of its size."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size_of(shape)]}
        position += size_of(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if not noise:
            file.truncate(8 + len(text) + position)
        while noise and position:
            position -= file.write(noise[: min(len(noise), position)])
        os.fsync(file.fileno())


def make_checkpoint(out: Path, gigabytes: float, noise: bytes | None = None, *, sparse: bool = False) -> None:
    """Write config.json, shards and index into a new folder; the weights are these bytes over and over.

    sparse  files without content, and the whole tables, so that layers alone make the size
    """
    out.mkdir(parents=True)
    layers, vocab = scaled(gigabytes)
    if sparse:
        tables = size_of((2 * VOCAB, HIDDEN))
        layer = sum(map(size_of, layer_shapes(0).values()))
        layers, vocab = max(round((gigabytes * 1e9 - tables) / layer), 1), VOCAB
    shards = split(all_shapes(layers, vocab))
    noise = b"" if sparse else noise or os.urandom(NOISE_BYTES)
    weight_map, total = {}, 0
    for number, shapes in enumerate(shards, 1):
        single = len(shards) == 1
        name = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(out / name, shapes, noise)
        weight_map.update(dict.fromkeys(shapes, name))
        total += sum(size_of(shape) for shape in shapes.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": vocab, "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "hidden_act": "silu", "max_position_embeddings": 40_960, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000,
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=2))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gigabytes", type=float, default=16, help="about this size; 16 gives the true 36 layers")
    arguments = parser.parse_args()
    make_checkpoint(arguments.out, arguments.gigabytes)


if __name__ == "__main__":
    main()
