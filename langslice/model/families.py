"""What is known about model families: the axes of their tensors, and how the models read text.

One table for all; no other place lists model types but layer_fields.py. Rules and axes are explained in axes.py.

Which configuration fields hold token ids is in token_id_fields.py. How to add a family: docs/adding-a-family.md.
Checked against every tensor that unmodified transformers 5 writes for each family (tests/model/test_families.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langslice.errors import CheckpointError, PlanError, UnknownFamilyError
from langslice.model.axes import Family, LiveRows, Rule, describe_tensor
from langslice.model.body import Body
from langslice.model.class_shapes import NoClassError, UnreadableClassError
from langslice.model.derivation import Row, derive_row
from langslice.model.layer_fields import table_body
from langslice.model.remote_code import trust_hint

TOKENIZER_ALONE = (
    "to slice its tokenizer alone, put the tokenizer's files, and one embedding matrix as model.safetensors if you like, "
    "into a folder: the slice of that holds kept_ids.npy, the old id of every new one, to gather rows by"
)

# fmt: off
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
    Rule("other", r"altup\.correct_output_scale", ("hidden",), "raw"),
    # Gemma 4 with experts beside its feed-forward part
    Rule("router", r"router\.proj", ("experts", "hidden")),
    Rule("router", r"router\.scale", ("hidden",), "raw"),
    Rule("router", r"router\.per_expert_scale", ("experts",), "raw"),
    Rule("norm", r"(?:pre|post)_feedforward_layernorm_[12]", ("hidden",), "vector"),
    Rule("other", r"altup\.modality_router", ("inputs", "hidden")),
    Rule("other", r"altup\.(?:correction_coefs|prediction_coefs)", ("mixed", "inputs")),
    Rule("norm", r"altup\.router_norm", ("hidden",), "vector"),
    Rule("other", r"laurel\.linear_left", ("rank", "hidden")),
    Rule("other", r"laurel\.linear_right", ("hidden", "rank")),
    Rule("other", "layer_scalar", ("one",), "raw"),
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
    Family(("bert", "layoutlm")),
    Family(("megatron-bert",), (Rule("norm", "ln", ("hidden",), "vector"),)),
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
    # Draft models: the head is over the tokens that d2t lists.
    Family(("eagle3",), (
        Rule("vocabulary", "(?:verifier_)?lm_head", ("draft_vocab", "hidden")),
        Rule("vocabulary", "d2t", ("draft_vocab",), "raw"),
        Rule("vocabulary", "t2d", ("vocab",), "raw"),
        Rule("other", "fc", ("hidden", "target_hidden")))),
    Family(("eagle3_whole",), (
        Rule("vocabulary", "(?:verifier_)?lm_head", ("vocab", "hidden")),
        Rule("other", "fc", ("hidden", "target_hidden")))),
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
    # Every id after no_timestamps_token_id is a time stamp, 0.02 s after the one before.
    Family(("whisper",), (Rule("other", r"encoder\.conv[12]", (), "opaque"),), LiveRows("time stamps"), hears=True),
    Family(("xglm",), reads_trees=True),
    Family(("gpt_neox",), reads_trees=True),
    Family(("bloom", "falcon", "mpt")),
    Family(("gpt2",), _GPT2, reads_trees=True),
    Family(("gpt_bigcode",), (
        Rule("attention", r"crossattention\.c_attn", ("kv", "hidden")),
        Rule("attention", "c_attn", ("qkv", "hidden")),
        Rule("attention", "q_attn", ("heads", "hidden")),
        Rule("attention", r"(?:attn|crossattention)\.c_proj", ("hidden", "heads")))),
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
        Rule("attention", "kv_b_proj", ("heads", "kv_rank")),
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

_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def is_known_type(model_type: object) -> bool:
    """Whether a `model_type` is in the table."""
    return isinstance(model_type, str) and model_type in _BY_TYPE


def family_of(config: Mapping[str, Any]) -> Family:
    """The row of a config.json by its `model_type`; for a type that is not in the table the row of its class (derivation.py)."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UnknownFamilyError(
            "config.json has no `model_type`, and nothing inside it names a known one",
            hint=f"langslice reads models in the layout of Hugging Face transformers; {TOKENIZER_ALONE}",
        )
    family = _BY_TYPE.get(model_type)
    return _from_class(config, model_type) if family is None else family


def _from_class(config: Mapping[str, Any], model_type: str) -> Family:
    try:
        return derive_row(config).family
    except NoClassError:
        near = difflib.get_close_matches(model_type, _BY_TYPE, n=3)
        likeness = f"; similar ones that are known: {', '.join(near)}" if near else ""
        raise UnknownFamilyError(
            f"unknown model type `{model_type}` in config.json{likeness}; nothing was written",
            hint=trust_hint(config)
            or f"add a row to langslice/model/families.py, see docs/adding-a-family.md; {TOKENIZER_ALONE}",
        ) from None
    except UnreadableClassError as error:
        raise UnknownFamilyError(
            f"model type `{model_type}` is not in the table, and no row can be read off its class: {error}; "
            "nothing was written",
            hint=f"write the row yourself, see docs/adding-a-family.md; {TOKENIZER_ALONE}",
        ) from None


def reading_of(config: Mapping[str, Any]) -> Family:
    """The row of a config.json, for how a model reads: from the table, or from its class where `architectures` names one.

    Returns  an empty row for a model type that is in neither
    """
    known = _BY_TYPE.get(str(config.get("model_type")))
    if known is not None or not config.get("architectures"):
        return known or Family(())
    try:
        return derive_row(config).family
    except UnreadableClassError:
        return Family(())


def body_of(config: Mapping[str, Any]) -> Body:
    """The row of a config.json for its layers, from the table (layer_fields.py) or derived from its class.

    Raises   PlanError where there is neither
    """
    model_type = config.get("model_type")
    found = table_body(model_type)
    if found is not None:
        return found
    try:
        row = derive_row(config)
    except UnreadableClassError as error:
        why = str(error) if not isinstance(error, NoClassError) else "transformers has no class for it"
    else:
        if row.body is not None and is_known_type(model_type):
            return _beside_table(_BY_TYPE[str(model_type)], row, row.body)
        if row.body is not None:
            return row.body
        why = row.why
    raise PlanError(
        f"the layers of model type `{model_type}` are not in the table, and could not be read off its class: {why}",
        hint="its vocabulary can be cut; to add its layers, see docs/adding-a-family.md",
    )


_KINDS = {
    "heads": frozenset({"heads", "kv_heads", "num_heads", "num_kv_heads", "qkv", "kv"}),
    "neurons": frozenset({"neurons", "gate_up"}),
    "experts": frozenset({"experts", "experts_and_more"}),
}


def _beside_table(family: Family, row: Row, body: Body) -> Body:
    """A derived row of layers for a family that has its axes in the table: where the two disagree, neither is trusted."""
    refused = dict(body.refused)
    for name, shape in row.inside.items():
        for kind, known in _KINDS.items():
            ours, theirs = (_axes_of(one, name, shape, known) for one in (family, row.family))
            if kind not in refused and ours != theirs:
                refused[kind] = f"the table and the class do not agree about {name}, shape {shape}"
    return replace(body, refused=refused)


def _axes_of(family: Family, name: str, shape: tuple[int, ...], known: frozenset[str]) -> dict[int, str]:
    try:
        said = describe_tensor(family, name, shape, frozenset()).axes
    except CheckpointError:
        return {-1: "unknown"}
    return {dim: axis for dim, axis in enumerate(said or ()) if axis in known}
