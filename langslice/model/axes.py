"""Along which axes each tensor of a model runs: rules by the end of its name, and how they are applied.

A rule matches the end of a tensor's name; a family's own rules come before the common ones. Axes:

    vocab            rows of tokens                      hidden     the residual stream
    per_layer_vocab  tokens with per-layer embeddings    heads      query heads times head_dim
    kv_heads         key-value heads times head_dim      neurons    feed-forward width
    qkv              fused query, key and value          kv         fused key and value
    gate_up          fused gate and up projection
    draft_vocab      tokens of a draft model's head      target_hidden  residual streams of its target
    experts_and_more  experts, and rows of their router behind them, which stay
    head_dim, num_heads, positions, buckets, types, experts, labels, embedding (factorised table), ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from langslice.errors import CheckpointError, UnknownTensorError

VOCABULARY_AXES = ("vocab", "per_layer_vocab", "draft_vocab")


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
    """Rows after the tokenizer's last token with which a family's code computes; elsewhere such rows are padding.

    They stay, in order, directly after the last token, and nothing follows them: the code counts from one of their ends.

    meaning  what they stand for
    unless   a token: where the tokenizer has it, the rows have tokens themselves, and those after are padding
    """

    meaning: str
    unless: str | None = None


@dataclass(frozen=True)
class Family:
    """One or more model types that share a layout, and everything else that is said here.

    live_rows         rows after the tokenizer's last token with which the class computes; None where they are padding
    offset_positions  positions are counted from after the padding token's id, in a table that holds them all
    any_length        positions are relative: no field of config.json limits the length of a text
    reads_trees       the unmodified class takes positions and a mask of four dimensions
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
    """What the table says of one tensor; `axes` is None where it says nothing about the dimensions.

    packed  part of a table of the vocabulary that is stored quantised, so that its rows cannot be sliced
    """

    part: str
    axes: tuple[str, ...] | None
    packed: bool = False


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
    Rule("other", r"pooler\.dense|pre_classifier|classifier\.dense|classification_head\.dense|score\.dense", ("hidden", "hidden")),
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
# fmt: on

# Parts of a weight that GPTQ, AWQ, bitsandbytes and compressed-tensors store in place of it or next to it.
_QUANTISED = re.compile(
    r"qweight|qzeros|scales|g_idx|SCB|weight_format|weight_\w+|absmax|quant_\w+|input_scale|zero_point"
)
# Of these, scales of a weight whose rows are stored one by one: one for each row, or one for all.
_SCALES = ("SCB", "weight_scale", "weight_format", "input_scale")


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
    cut               whether the vocabulary is sliced; where it is not, a quantised table of it has no axes and stays
    Returns           axes, one a dimension; None where the table has none and no dimension is as long as a vocabulary
    Raises            UnknownTensorError for a tensor that may run along the vocabulary and is not in the table
    """
    if _TOWERS.fullmatch(name):
        if vocabulary_sizes & set(shape):
            raise _unknown(
                family, name, shape, "it is in a tower, and one of its dimensions is as long as the vocabulary"
            )
        return TensorAxes("tower", None)
    for rule in (*family.rules, *COMMON):
        found = _match(rule, name)
        if found is None:
            continue
        if found.axes is None and set(rule.axes) & set(VOCABULARY_AXES):
            scale = _scale(found, name, shape, vocabulary_sizes)
            if scale is not None:
                return scale
            if _QUANTISED.fullmatch(name.rpartition(".")[2]) is None:
                raise _unknown(
                    family, name, shape, "its module runs along the vocabulary, but its storage format is not known"
                )
            if cut:
                raise _quantised(name, shape)
            return replace(found, packed=True)
        if found.axes is not None and len(found.axes) != len(shape):
            raise _unknown(
                family, name, shape, f"the table expects {len(found.axes)} dimensions ({', '.join(found.axes)})"
            )
        return found
    if vocabulary_sizes & set(shape):
        raise _unknown(family, name, shape, "one of its dimensions is as long as the vocabulary")
    return TensorAxes("other", None)


def _scale(found: TensorAxes, name: str, shape: tuple[int, ...], rows: frozenset[int]) -> TensorAxes | None:
    """The axes of a scale of a vocabulary's table: a number for each row, or one for all; None for anything else.

    Source: int8 weights of bitsandbytes (`SCB`, one a row), FP8 of compressed-tensors (`weight_scale`, one a row or one).
    """
    if name.rpartition(".")[2] not in _SCALES:
        return None
    if prod(shape) == 1:
        return found
    along = bool(shape) and shape[0] in rows and prod(shape) == shape[0]
    return replace(found, axes=("vocab", *("one",) * (len(shape) - 1))) if along else None


def describe_tensors(
    family: Family, shapes: Mapping[str, tuple[int, ...]], rows: int, *, cut: bool = False
) -> dict[str, TensorAxes]:
    """The axes of many tensors, as describe_tensor gives them.

    shapes  of the tensors by name
    rows    of the vocabulary
    cut     whether it is sliced; `refuse_packed` finds out later what this refuses at once
    """
    sizes = frozenset({rows, *shapes.get("d2t", ())})
    return {name: describe_tensor(family, name, shape, sizes, cut=cut) for name, shape in shapes.items()}


def refuse_packed(axes: Mapping[str, TensorAxes], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse to slice a vocabulary of which a table is stored quantised.

    Raises  UnknownTensorError that names the first such tensor
    """
    for name, tensor in axes.items():
        if tensor.packed:
            raise _quantised(name, shapes[name])


def _unknown(family: Family, name: str, shape: tuple[int, ...], why: str) -> CheckpointError:
    return UnknownTensorError(
        f"unknown tensor {name}, shape {shape}\n  {why}\n"
        f"  family `{family.model_types[0]}` gives it no axes; nothing was written",
        hint="add one line to langslice/model/families.py, see docs/adding-a-family.md",
    )


def _quantised(name: str, shape: tuple[int, ...]) -> CheckpointError:
    module, _, leaf = name.rpartition(".")
    return UnknownTensorError(
        f"{module} runs along the vocabulary and is stored quantised, so its rows cannot be sliced\n"
        f"  found {leaf}, shape {shape}, where weight would be; nothing was written",
        hint="slice the model that it was quantised from and quantise the slice; without a slice of the vocabulary "
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
