"""What is known about the layers of model families: configuration fields, fused layouts, and what unmodified code can express.

One row for each group of model types whose layers are counted and sized by the same fields. model/families.py says along which
axes each tensor runs; a row here says how long these axes are, and which fields of config.json say so. A family without a
row can have its vocabulary sliced, not its layers, heads or neurons: such a slice is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.model.body import Body, Residual, Routing, StackFields


def _one(
    heads: str = "num_attention_heads",
    neurons: str = "intermediate_size",
    layers: str = "num_hidden_layers",
    kv_heads: str = "",
    experts: str = "",
    routing: Routing | None = None,
) -> dict[str, StackFields]:
    return {"layers": StackFields(layers, heads, neurons, kv_heads, experts, routing)}


def _clients(
    llama_cpp: str = "", vllm: str = "", ctranslate2: str = "", mlx: str = "", tei: str = ""
) -> dict[str, frozenset[str]]:
    """Words are what a client takes of an unmodified slice; docs/concepts/clients.md says what of it was run and what read."""
    given = {"llama.cpp": llama_cpp, "vLLM": vllm, "CTranslate2": ctranslate2, "MLX": mlx, "TEI": tei}
    return {name: frozenset(words.split()) for name, words in given.items() if words}


# Numbers of rows that llama.cpp takes for a certain model -> model types, layers that it asks for, what it takes it for. Of
# conversion/llama.py (0274f0f), also in classes that inherit from it, and src/models/deepseek2.cpp; read in November 2026.
_LLAMA_KINDS = frozenset({"llama", "mistral", "mixtral", "granite", "granitemoe", "smollm3"})
LLAMA_CPP_SIZES: Mapping[int, tuple[frozenset[str], int | None, str]] = {
    32016: (_LLAMA_KINDS, None, "CodeLlama, of which the tokens 32007 to 32010 mark what is to be filled in"),
    49152: (_LLAMA_KINDS, None, "a small Granite, of which no text begins with BOS"),
    128256: (
        frozenset({"deepseek_v2", "deepseek_v3"}),
        48,
        "a model of 48 layers whose queries have no low-rank projection",
    ),
}

_BERT = _one()
_GROUPED = _one(kv_heads="num_key_value_heads")
_T5 = {
    "encoder": StackFields("num_layers", "num_heads", "d_ff"),
    "decoder": StackFields("num_decoder_layers", "num_heads", "d_ff"),
}
_BART = {
    side: StackFields(f"{side}_layers", f"{side}_attention_heads", f"{side}_ffn_dim") for side in ("encoder", "decoder")
}
_RMS = Residual(rotates=True)
_BEHIND = Residual(after="post_attention_layernorm|post_feedforward_layernorm")
_LAYER_NORM = Residual(norm="layer")
_GEMMA = Residual(norm="rms+1", scaled=True)
_SANDWICH = Residual(norm="rms+1", scaled=True, after="post_attention_layernorm|post_feedforward_layernorm")
_ALL = "layers heads neurons"
_NO_HEADS = "layers neurons"

# fmt: off
BODIES = (
    Body(("bert", "roberta", "xlm-roberta", "camembert"), _BERT,
         head_counts=("num_attention_heads",), head_widths=("all_head_size",),
         clients=_clients(_NO_HEADS, _NO_HEADS, _NO_HEADS, tei=_NO_HEADS), residual=_LAYER_NORM),
    Body(("deberta-v2",), _BERT, first_layer="unmodified code adds a convolution to the output of whatever layer is first",
         first_if="conv_kernel_size", head_counts=("num_attention_heads",), head_widths=("all_head_size",)),
    Body(("distilbert",), _one("n_heads", "hidden_dim", layers="n_layers"),
         head_counts=("n_heads",), head_widths=("dim",), clients=_clients("", "", _NO_HEADS)),
    Body(("modernbert",), _BERT, fused="parts", lists=("layer_types",), alternates=True, head_counts=(),
         first_layer="it has no attention norm, and unmodified code gives every later layer one",
         clients=_clients("neurons", "neurons", tei="neurons")),
    Body(("albert",), _one(layers=""), head_counts=("num_attention_heads",), head_widths=("all_head_size",)),
    Body(("t5",), _T5, head_size="d_kv", first_bias=True, head_counts=("n_heads",), head_widths=("inner_dim",),
         clients=_clients(_NO_HEADS, "", _ALL),
         residual=Residual("d_model", divided=True)),
    Body(("mt5",), _T5, head_size="d_kv", first_bias=True, head_counts=("n_heads",), head_widths=("inner_dim",),
         clients=_clients(_NO_HEADS, "", _ALL), residual=Residual("d_model")),
    Body(("umt5",), _T5, head_size="d_kv", head_counts=("n_heads",), head_widths=("inner_dim",),
         residual=Residual("d_model", divided=True)),
    Body(("bart", "mbart", "m2m_100", "marian", "pegasus"), _BART, head_widths=("embed_dim",),
         clients=_clients("", "", _NO_HEADS)),
    Body(("whisper",), _BART, head_widths=("embed_dim",), clients=_clients("", _NO_HEADS, _NO_HEADS)),
    Body(("xglm",), _one("attention_heads", "ffn_dim", layers="num_layers"), head_widths=("embed_dim",)),
    Body(("bloom",), _one("n_head", "", layers="n_layer"), fused="heads", slopes=True,
         clients=_clients("layers", "layers", "layers")),
    Body(("gpt2",), _one("n_head", "n_inner", layers="n_layer"), fused="parts",
         consults=("scale_attn_by_inverse_layer_idx",), head_widths=("split_size", "embed_dim"),
         clients=_clients(_NO_HEADS, _NO_HEADS, _NO_HEADS)),
    Body(("opt",), _one(neurons="ffn_dim"), head_widths=("embed_dim",), clients=_clients("", _NO_HEADS, _NO_HEADS)),
    Body(("gpt_neox",), _BERT, fused="heads", head_counts=(), clients=_clients(_NO_HEADS, _NO_HEADS, _NO_HEADS)),
    Body(("falcon",), _one(neurons="ffn_hidden_size", kv_heads="num_kv_heads"), fused="configured",
         consults=("new_decoder_architecture", "multi_query", "alibi"), clients=_clients("layers", "layers", "layers")),
    Body(("llama",), _GROUPED, head_size="head_dim", clients=_clients(_ALL, _ALL, _NO_HEADS, _ALL), residual=_RMS),
    Body(("mistral",), _GROUPED, head_size="head_dim", clients=_clients(_ALL, _ALL, _ALL, _ALL), residual=_RMS),
    Body(("qwen2",), _GROUPED, head_size="head_dim", lists=("layer_types",), consults=("max_window_layers",),
         clients=_clients(_NO_HEADS, _NO_HEADS, _NO_HEADS, _NO_HEADS), residual=_RMS),
    Body(("qwen3",), _GROUPED, head_size="head_dim", lists=("layer_types",), consults=("max_window_layers",),
         clients=_clients(_ALL, _ALL, _ALL, _ALL, _ALL), residual=_RMS),
    Body(("qwen3_moe",), _one(kv_heads="num_key_value_heads", experts="moe_intermediate_size",
                              routing=Routing("num_experts", "num_experts_per_tok")),
         head_size="head_dim", lists=("layer_types", "mlp_only_layers"), clients=_clients(_ALL, _ALL), residual=_RMS),
    Body(("gemma",), _GROUPED, head_size="head_dim", clients=_clients(_ALL, _ALL, _ALL, _ALL), residual=_GEMMA),
    # llama.cpp, MLX and TEI derive the kinds of Gemma 3's and Cohere's layers from their place.
    Body(("gemma2",), _GROUPED, head_size="head_dim", lists=("layer_types",), alternates=True,
         clients=_clients("heads neurons", _ALL, _ALL, _ALL), residual=_SANDWICH),
    Body(("gemma3_text",), _GROUPED, head_size="head_dim", lists=("layer_types",), alternates=True,
         clients=_clients("heads neurons", _ALL, _ALL, "heads neurons", "heads neurons"), residual=_SANDWICH),
    Body(("gemma3",), _GROUPED, section="text_config", head_size="head_dim", lists=("layer_types",), alternates=True,
         clients=_clients("heads neurons", "heads neurons layers")),
    Body(("cohere",), _GROUPED, head_size="head_dim", clients=_clients(_NO_HEADS, _ALL, mlx=_NO_HEADS)),
    Body(("cohere2",), _GROUPED, head_size="head_dim", lists=("layer_types",), alternates=True,
         clients=_clients("neurons", _ALL, mlx="neurons")),
    Body(("phi",), _GROUPED, head_size="head_dim", tied_if="qk_layernorm",
         clients=_clients(_NO_HEADS, _NO_HEADS, mlx=_NO_HEADS)),
    Body(("phi3",), _GROUPED, head_size="head_dim", fused="parts",
         even_heads="unmodified code splits the fused projection by the one number of heads in config.json",
         clients=_clients(_NO_HEADS, _NO_HEADS, _NO_HEADS, _NO_HEADS), residual=_RMS),
    Body(("exaone4",), _GROUPED, head_size="head_dim", lists=("layer_types",), alternates=True, residual=_BEHIND),
    Body(("hunyuan_v1_dense", "hyperclovax"), _GROUPED, head_size="head_dim"),
    Body(("gte", "jina_embeddings_v3", "nomic_bert"), _BERT, head_size="head_dim", fused="parts", renamed=True),
    Body(("granite",), _GROUPED, head_size="head_dim", clients=_clients(_ALL, _ALL, mlx=_NO_HEADS), residual=_RMS),
    Body(("smollm3",), _GROUPED, head_size="head_dim", lists=("layer_types", "no_rope_layers"), alternates=True,
         clients=_clients("heads neurons", _ALL, mlx=_ALL), residual=_RMS),
    Body(("olmo2",), _GROUPED, head_size="head_dim", norm_all=True, clients=_clients(_NO_HEADS, _NO_HEADS, mlx=_NO_HEADS),
         residual=_BEHIND),
)
# fmt: on

_BY_TYPE = {model_type: body for body in BODIES for model_type in body.model_types}


def shares_layers(config: Mapping[str, Any]) -> bool:
    """Whether one set of weights serves all layers of a model, as far as the table knows it."""
    body = _BY_TYPE.get(str(config.get("model_type")))
    return body is not None and not all(fields.layers for fields in body.stacks.values())


def table_body(model_type: object) -> Body | None:
    """The row of a model type; None for one that is not in the table."""
    return _BY_TYPE.get(str(model_type))
