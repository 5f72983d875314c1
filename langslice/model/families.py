"""What is known about model families: the axes of every tensor, and how the models read text.

One table for all; no other place lists model types but layer_fields.py. A rule matches the end of a tensor's name; a family's
own rules come before the common ones. Axes:

    vocab            rows of tokens                      hidden     the residual stream
    per_layer_vocab  tokens with per-layer embeddings    heads      query heads times head_dim
    kv_heads         key-value heads times head_dim      neurons    feed-forward width
    qkv              fused query, key and value          kv         fused key and value
    gate_up          fused gate and up projection
    head_dim, num_heads, positions, buckets, types, experts, labels, embedding (factorised table), ...

Which configuration fields hold token ids is in token_id_fields.py. How to add a family: docs/adding-a-family.md.
Checked against every tensor that stock transformers 5 writes for each family (tests/model/test_families.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langslice.errors import CheckpointError, UnknownFamilyError, UnknownTensorError

VOCABULARY_AXES = ("vocab", "per_layer_vocab")
TOKENIZER_ALONE = (
    "to slice its tokenizer alone, put the tokenizer's files, and one embedding matrix as model.safetensors if you like, "
    "into a folder: the slice of that holds kept_ids.npy, the old id of every new one, to gather rows by"
)


@dataclass(frozen=True)
class Rule:
    """Axes of the tensors whose module path ends in `pattern`.

    layout  "linear": weight (out, in), bias (out,)   "conv1d": weight (in, out), bias (out,); axes name (in, out)
            "vector": weight and bias (axis,)         "raw": a tensor without weight/bias suffix, axes as given
            "bias": only a bias, axes as given        "opaque": weights whose axes no slice touches
    """

    part: str
    pattern: str
    axes: tuple[str, ...]
    layout: str = "linear"


@dataclass(frozen=True)
class LiveRows:
    """Rows behind the tokenizer's last token with which a family's code computes; elsewhere such rows are padding.

    They stay, in order, directly behind the last token, and nothing follows them: the code counts from one of their ends.

    meaning  what they stand for
    unless   a token: where the tokenizer has it, the rows have tokens themselves, and those behind are padding
    """

    meaning: str
    unless: str | None = None


@dataclass(frozen=True)
class Family:
    """One or more model types that share a layout, and everything else that is said here.

    live_rows         rows behind the tokenizer's last token with which the class computes; None where they are padding
    offset_positions  positions are counted from behind the padding token's id, in a table that holds them all
    any_length        positions are relative: no field of config.json limits the length of a text
    reads_trees       the stock class takes positions and a mask of four dimensions
    language          how a text says its language: "token" of its own in front, "mark" >>ko<< in front, "" not at all
    sentinels         text is damaged for training by T5's sentinels
    hears             reads sound, not text
    """

    model_types: tuple[str, ...]
    rules: tuple[Rule, ...] = ()
    live_rows: LiveRows | None = None
    offset_positions: bool = False
    any_length: bool = False
    reads_trees: bool = False
    language: str = ""
    sentinels: bool = False
    hears: bool = False


@dataclass(frozen=True)
class TensorAxes:
    """What the table says of one tensor; `axes` is None where it says nothing about the dimensions."""

    part: str
    axes: tuple[str, ...] | None


# fmt: off
COMMON = (
    # vocabulary
    Rule("vocabulary", "embed_tokens|word_embeddings|wte|shared|embed_in|tok_embeddings", ("vocab", "hidden")),
    Rule("vocabulary", "embed_tokens_per_layer", ("per_layer_vocab", "per_layer")),
    Rule("vocabulary", "lm_head|embed_out|proj_out|vocab_projector", ("vocab", "hidden")),
    Rule("vocabulary", r"(?:cls\.predictions|lm_head|predictions)\.decoder", ("vocab", "hidden")),
    Rule("vocabulary", r"cls\.predictions|predictions|lm_predictions\.lm_head|generator_lm_head", ("vocab",), "bias"),
    Rule("vocabulary", "final_logits_bias", ("one", "vocab"), "raw"),
    # attention
    Rule("attention", r"q_proj|query|q_lin|query_proj|pos_query_proj|(?:Self|EncDec)Attention\.q", ("heads", "hidden")),
    Rule("attention", r"k_proj|key|k_lin|key_proj|pos_key_proj|(?:Self|EncDec)Attention\.k", ("kv_heads", "hidden")),
    Rule("attention", r"v_proj|value|v_lin|value_proj|(?:Self|EncDec)Attention\.v", ("kv_heads", "hidden")),
    Rule("attention", r"o_proj|out_proj|out_lin|(?:Self|EncDec)Attention\.o|(?:cross)?attention\.output\.dense"
                      r"|(?:self_attn|attention|self_attention)\.dense|attn\.Wo", ("hidden", "heads")),
    Rule("attention", "qkv_proj|query_key_value|Wqkv", ("qkv", "hidden")),
    Rule("attention", "q_norm|k_norm|q_layernorm|k_layernorm", ("head_dim",), "vector"),
    Rule("attention", "relative_attention_bias", ("buckets", "num_heads")),
    # feed-forward
    Rule("feed-forward", r"gate_proj|up_proj|wi|wi_0|wi_1|fc1|fc_in|lin1|mlp\.c_fc|dense_h_to_4h|intermediate\.dense"
                         r"|experts\.\d+\.w[13]", ("neurons", "hidden")),
    Rule("feed-forward", r"down_proj|DenseReluDense\.wo|mlp\.wo|fc2|fc_out|lin2|mlp\.c_proj|dense_4h_to_h|output\.dense"
                         r"|mlp\.Wo|experts\.\d+\.w2", ("hidden", "neurons")),
    Rule("feed-forward", r"gate_up_proj|mlp\.Wi", ("gate_up", "hidden")),
    Rule("feed-forward", r"experts\.gate_up_proj", ("experts", "gate_up", "hidden"), "raw"),
    Rule("feed-forward", r"experts\.down_proj", ("experts", "hidden", "neurons"), "raw"),
    Rule("router", r"mlp\.gate|block_sparse_moe\.gate|router\.classifier|mlp\.router", ("experts", "hidden")),
    # everything else along known axes
    Rule("positions", "position_embeddings|embed_positions|wpe", ("positions", "hidden")),
    Rule("positions", "rel_embeddings", ("buckets", "hidden")),
    Rule("other", "token_type_embeddings", ("types", "hidden")),
    Rule("other", r"pooler\.dense|pre_classifier|classifier\.dense|classification_head\.dense|score\.dense", ("labels", "hidden")),
    Rule("other", r"classifier|score|qa_outputs|(?:classifier|classification_head)\.out_proj", ("labels", "hidden")),
    Rule("other", r"lm_head\.dense|transform\.dense|vocab_transform|head\.dense|predictions\.dense", ("hidden", "hidden")),
    Rule("norm", r"\w*(?:norm|LayerNorm|layernorm|layer_norm|layernorm_embedding)|ln_\w+|norm\d|LayerNorm", ("hidden",), "vector"),
    Rule("other", r"position_ids|masked_bias|(?:attn|attention)\.(?:attention\.)?(?:bias|masked_bias)|inv_freq|rotary_emb\.\w+"
                  r"|token_type_ids|embed_positions\._float_tensor|rotary_pos_emb\.\w+", (), "opaque"),
)

# Towers of multimodal wrappers: read by their own front end, never along the text vocabulary.
_TOWERS = re.compile(
    r"(?:model\.)?(?:vision_tower|vision_model|visual|audio_tower|audio_model|multi_modal_projector|embed_vision|embed_audio"
    r"|vision_embed_tokens|image_newline|connector|mm_projector|vision_embedder)(?:\.|$).*"
)

_FACTORISED = tuple(
    Rule(part, pattern, axes, layout) for part, pattern, axes, layout in (
        ("vocabulary", "word_embeddings", ("vocab", "embedding"), "linear"),
        ("positions", "position_embeddings", ("positions", "embedding"), "linear"),
        ("other", "token_type_embeddings", ("types", "embedding"), "linear"),
        ("norm", r"embeddings\.LayerNorm", ("embedding",), "vector"),
        ("other", "embeddings_project|embedding_hidden_mapping_in", ("hidden", "embedding"), "linear"),
    )
)

_PER_LAYER_INPUTS = (
    Rule("other", r"altup_projections\.\d+|altup_unembed_projections\.\d+", ("hidden", "hidden")),
    Rule("other", r"altup\.(?:correct_output_scale|correction_coefs|modality_router|prediction_coefs|router_norm)", (), "opaque"),
    Rule("other", r"laurel\.(?:linear_left|linear_right)|layer_scalar", (), "opaque"),
    Rule("other", "per_layer_model_projection", ("per_layer", "hidden")),
    Rule("norm", "per_layer_projection_norm", ("per_layer_inputs",), "vector"),
    Rule("other", "per_layer_input_gate", ("per_layer_inputs", "hidden")),
    Rule("other", "per_layer_projection", ("hidden", "per_layer_inputs")),
)

_GPT2 = (
    Rule("attention", r"crossattention\.c_attn", ("hidden", "kv"), "conv1d"),
    Rule("attention", r"c_attn", ("hidden", "qkv"), "conv1d"),
    Rule("attention", r"q_attn", ("hidden", "heads"), "conv1d"),
    Rule("attention", r"(?:attn|crossattention)\.c_proj", ("heads", "hidden"), "conv1d"),
    Rule("feed-forward", r"mlp\.c_fc", ("hidden", "neurons"), "conv1d"),
    Rule("feed-forward", r"mlp\.c_proj", ("neurons", "hidden"), "conv1d"),
)

FAMILIES = (
    Family(("bert", "megatron-bert", "layoutlm")),
    Family(("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "data2vec-text"), offset_positions=True),
    Family(("distilbert",)),
    # Folders that no configuration of transformers describes: folder_kinds.py.
    Family(("static_embedding", "model2vec"), (
        Rule("vocabulary", r"embedding\.weight|embeddings", ("vocab", "hidden"), "raw"),
        Rule("vocabulary", "weights?", ("vocab",), "raw"))),
    Family(("model2vec_mapped",), (
        Rule("vocabulary", "mapping|weights", ("vocab",), "raw"), Rule("other", "embeddings", (), "opaque"))),
    Family(("embedding_matrix",), (Rule("vocabulary", ".+", ("vocab", "hidden"), "raw"),)),
    Family(("tokenizer",)),
    Family(("gte", "jina_embeddings_v3", "nomic_bert"), (
        Rule("feed-forward", "up_gate_proj", ("gate_up", "hidden")),
        Rule("feed-forward", "fc1[12]", ("neurons", "hidden")),
        Rule("norm", "attn_ln|mlp_ln|emb_ln", ("hidden",), "vector"))),
    Family(("hunyuan_v1_dense", "hyperclovax"), (
        Rule("attention", "query_layernorm|key_layernorm", ("head_dim",), "vector"),
        Rule("norm", "post_norm[12]", ("hidden",), "vector")), reads_trees=True),
    Family(("electra",), (*_FACTORISED,
        Rule("norm", r"generator_predictions\.LayerNorm", ("embedding",), "vector"),
        Rule("other", r"generator_predictions\.dense", ("embedding", "hidden")))),
    Family(("albert",), (*_FACTORISED,
        Rule("norm", r"predictions\.LayerNorm", ("embedding",), "vector"),
        Rule("other", r"predictions\.dense", ("embedding", "hidden")),
        Rule("vocabulary", r"predictions\.decoder", ("vocab", "embedding")),
        Rule("feed-forward", "ffn", ("neurons", "hidden")),
        Rule("feed-forward", "ffn_output", ("hidden", "neurons")),
        Rule("other", "pooler", ("labels", "hidden")))),
    Family(("rembert",), (*_FACTORISED,
        Rule("norm", r"predictions\.LayerNorm", ("output_embedding",), "vector"),
        Rule("other", r"predictions\.dense", ("output_embedding", "hidden")),
        Rule("vocabulary", r"predictions\.decoder", ("vocab", "output_embedding")))),
    Family(("deberta-v2",), (
        Rule("norm", r"rel_embeddings_layer_norm|encoder\.LayerNorm", ("hidden",), "vector"),
        Rule("other", r"encoder\.conv\.conv", (), "opaque"),
        Rule("vocabulary", r"mask_predictions\.(?:dense|LayerNorm|classifier)", (), "opaque"))),
    Family(("modernbert",), (Rule("vocabulary", "decoder", ("vocab", "hidden")),)),
    Family(("t5", "mt5", "umt5"), any_length=True, sentinels=True),
    Family(("bart", "pegasus", "blenderbot", "blenderbot-small", "plbart")),
    Family(("mbart", "m2m_100", "nllb-moe"), language="token"),
    Family(("marian",), language="mark"),
    # Every id behind no_timestamps_token_id is a time stamp, 0.02 s after the one before.
    Family(("whisper",), (Rule("other", r"encoder\.conv[12]", (), "opaque"),), LiveRows("time stamps"), hears=True),
    Family(("xglm",), reads_trees=True),
    Family(("gpt_neox",), reads_trees=True),
    Family(("bloom", "falcon", "mpt")),
    Family(("gpt2",), _GPT2, reads_trees=True),
    Family(("gpt_bigcode",), _GPT2),
    Family(("gptj",), reads_trees=True),
    Family(("gpt_neo",)),
    Family(("opt",), (Rule("other", "project_in", ("hidden", "embedding")), Rule("other", "project_out", ("embedding", "hidden")))),
    Family(("cohere", "cohere2"), (
        Rule("attention", "q_norm", ("num_heads", "head_dim")),
        Rule("attention", "k_norm", ("num_kv_heads", "head_dim"))), reads_trees=True),
    Family((
        "llama", "mistral", "ministral", "qwen2", "qwen3", "qwen3_moe", "mixtral", "gemma", "gemma2", "gemma3_text", "phi",
        "phi3", "granite", "smollm3", "olmo", "stablelm", "starcoder2", "glm4", "exaone4"), reads_trees=True),
    Family(("ministral3", "glm", "eurobert", "helium", "arcee", "nemotron", "seed_oss", "internlm3", "persimmon")),
    Family(("qwen2_moe",), (Rule("router", r"mlp\.shared_expert_gate", ("one", "hidden")),)),
    Family(("olmo2", "olmo3"), (
        Rule("attention", "q_norm", ("heads",), "vector"),
        Rule("attention", "k_norm", ("kv_heads",), "vector")), reads_trees=True),
    Family(("apertus",), (Rule("feed-forward", r"mlp\.act_fn\.(?:alpha_n|alpha_p|beta|eps)", (), "opaque"),), reads_trees=True),
    Family(("deepseek_v2", "deepseek_v3"), (
        Rule("attention", "q_a_proj", ("q_rank", "hidden")),
        Rule("attention", "q_a_layernorm", ("q_rank",), "vector"),
        Rule("attention", "q_b_proj", ("heads", "q_rank")),
        Rule("attention", "kv_a_proj_with_mqa", ("kv_a", "hidden")),
        Rule("attention", "kv_a_layernorm", ("kv_rank",), "vector"),
        Rule("attention", "kv_b_proj", ("kv_b", "kv_rank")),
        Rule("attention", "o_proj", ("hidden", "v_heads")),
        Rule("router", r"mlp\.gate\.e_score_correction_bias", ("experts",), "raw"))),
    Family(("gemma3n_text", "gemma4_text"), _PER_LAYER_INPUTS),
    # Its towers name ranges of rows by vocab_offset, and the last row of all pads sound.
    Family(("gemma3n",), _PER_LAYER_INPUTS, LiveRows("placeholders of its image and sound towers")),
    # Its processor adds these tokens where the tokenizer lacks them.
    Family(("paligemma",), _PER_LAYER_INPUTS, LiveRows("places and segments of images", unless="<loc0000>")),
    Family((
        "gemma3", "gemma4", "mistral3", "llava", "llava_next", "llava_onevision", "qwen2_vl",
        "qwen2_5_vl", "qwen3_vl", "aya_vision", "internvl", "idefics3", "smolvlm"), _PER_LAYER_INPUTS),
)
# fmt: on

# Parts of a weight that GPTQ, AWQ, bitsandbytes and compressed-tensors store in place of it or beside it.
_QUANTISED = re.compile(
    r"qweight|qzeros|scales|g_idx|SCB|weight_format|weight_\w+|absmax|quant_\w+|input_scale|zero_point"
)

_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def is_known_type(model_type: object) -> bool:
    """Whether a `model_type` stands in the table."""
    return isinstance(model_type, str) and model_type in _BY_TYPE


def family_of(config: Mapping[str, Any]) -> Family:
    """Find the family of a config.json by its `model_type`."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UnknownFamilyError(
            "config.json has no `model_type`, and nothing inside it names a known one",
            hint=f"langslice reads models in the layout of Hugging Face transformers; {TOKENIZER_ALONE}",
        )
    family = _BY_TYPE.get(model_type)
    if family is None:
        near = difflib.get_close_matches(model_type, _BY_TYPE, n=3)
        likeness = f"; similar ones that are known: {', '.join(near)}" if near else ""
        raise UnknownFamilyError(
            f"unknown model type `{model_type}` in config.json{likeness}; nothing was written",
            hint=f"add a row to langslice/model/families.py, see docs/adding-a-family.md; {TOKENIZER_ALONE}",
        )
    return family


def reading_of(config: Mapping[str, Any]) -> Family:
    """The row of a config.json, for how a model reads; an empty one for a model type that is not in the table."""
    return _BY_TYPE.get(str(config.get("model_type")), Family(()))


@lru_cache(maxsize=4096)
def _compiled(rule: Rule) -> re.Pattern[str]:
    return re.compile(rf"(?:.*\.)?(?:{rule.pattern})")


def _match(rule: Rule, name: str) -> TensorAxes | None:
    module, _, leaf = name.rpartition(".")
    pattern = _compiled(rule)
    if rule.layout == "raw":
        return TensorAxes(rule.part, rule.axes) if pattern.fullmatch(name) else None
    if rule.layout == "opaque":
        return TensorAxes(rule.part, None) if pattern.fullmatch(name) or pattern.fullmatch(module) else None
    if rule.layout == "bias":
        return TensorAxes(rule.part, rule.axes) if leaf == "bias" and pattern.fullmatch(module) else None
    if not pattern.fullmatch(module):
        return None
    if leaf == "weight":
        return TensorAxes(rule.part, rule.axes)
    if leaf == "bias":
        return TensorAxes(rule.part, (rule.axes[1 if rule.layout == "conv1d" else 0],))
    # Quantised storage (qweight, scales, weight_scale, ...): the module is known, the packing is not.
    return TensorAxes(rule.part, None)


def is_tower(name: str) -> bool:
    """Whether a tensor belongs to the image or sound side of a multimodal wrapper."""
    return _TOWERS.fullmatch(name) is not None


def describe_tensor(
    family: Family, name: str, shape: tuple[int, ...], vocabulary_sizes: frozenset[int], *, cut: bool = True
) -> TensorAxes:
    """Give the axes of a tensor by its on-disk name.

    vocabulary_sizes  lengths that a vocabulary axis of this model has
    cut               whether the vocabulary is cut; where it is not, a quantised table of it has no axes and stays
    Returns           axes, one a dimension; None where the table has none and no dimension is as long as a vocabulary
    Raises            UnknownTensorError for a tensor that may run along the vocabulary and is not in the table
    """
    if _TOWERS.fullmatch(name):
        if vocabulary_sizes & set(shape):
            raise _unknown(
                family, name, shape, "it stands in a tower, and one of its dimensions is as long as the vocabulary"
            )
        return TensorAxes("tower", None)
    for rule in (*family.rules, *COMMON):
        found = _match(rule, name)
        if found is None:
            continue
        if found.axes is None and set(rule.axes) & set(VOCABULARY_AXES):
            if _QUANTISED.fullmatch(name.rpartition(".")[2]) is None:
                raise _unknown(
                    family, name, shape, "its module runs along the vocabulary, but its storage format is not known"
                )
            if cut:
                raise _quantised(name, shape)
            return found
        if found.axes is not None and len(found.axes) != len(shape):
            raise _unknown(
                family, name, shape, f"the table expects {len(found.axes)} dimensions ({', '.join(found.axes)})"
            )
        return found
    if vocabulary_sizes & set(shape):
        raise _unknown(family, name, shape, "one of its dimensions is as long as the vocabulary")
    return TensorAxes("other", None)


def _unknown(family: Family, name: str, shape: tuple[int, ...], why: str) -> CheckpointError:
    return UnknownTensorError(
        f"unknown tensor {name}, shape {shape}\n  {why}\n"
        f"  family `{family.model_types[0]}` gives it no axes; nothing was written",
        hint="add one line to langslice/model/families.py, see docs/adding-a-family.md",
    )


def _quantised(name: str, shape: tuple[int, ...]) -> CheckpointError:
    module, _, leaf = name.rpartition(".")
    return UnknownTensorError(
        f"{module} runs along the vocabulary and is stored quantised, so its rows cannot be cut\n"
        f"  found {leaf}, shape {shape}, where weight would stand; nothing was written",
        hint="slice the model that it was quantised from and quantise the slice; without a cut of the vocabulary "
        "(--drop-layers alone) quantised weights are carried as they are",
    )


def find_vocabulary_size(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the input embedding, read from the tensors themselves."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if _TOWERS.fullmatch(name):
            continue
        for rule in (*family.rules, *COMMON):
            found = _match(rule, name)
            if found is not None:
                if found.axes and "vocab" in found.axes and len(found.axes) == len(shape):
                    sizes[name] = shape[found.axes.index("vocab")]
                break
    if not sizes:
        raise UnknownTensorError(
            f"no tensor of family `{family.model_types[0]}` runs along the vocabulary; found {len(shapes)} tensors",
            hint="is this a whole model, or an adapter or a tower of one?",
        )
    if len(set(sizes.values())) > 1:
        listing = "\n".join(f"  {name}: {size} rows" for name, size in sorted(sizes.items()))
        raise CheckpointError(
            f"tensors disagree about the size of the vocabulary\n{listing}",
            hint="separate source and target vocabularies cannot be sliced by one plan",
        )
    return next(iter(sizes.values()))
