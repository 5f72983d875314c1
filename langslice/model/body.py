"""How the layers of a model are counted and sized: the fields of its configuration, and what stock code can express."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_EXPERT = re.compile(r"(?:^|(?<=\.))experts\.(?:expert_)?(\d+)\.")
# Names that classes have for the number of experts; published files use one, and later versions of a class another.
COUNTS_OF_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")


@dataclass(frozen=True)
class Routing:
    """Fields of config.json that say how many experts a layer has, and how tokens are sent to them; "" for none.

    experts     number of those that the router chooses from
    chosen      of them a token runs through so many
    groups      number of equal groups that they stand in, one after another
    top_groups  of these a token's experts are chosen from so many
    """

    experts: str
    chosen: str = ""
    groups: str = ""
    top_groups: str = ""


@dataclass(frozen=True)
class StackFields:
    """Fields of config.json for one stack of layers.

    layers    number of layers; "" where the layers share one set of weights
    heads     number of query heads
    neurons   feed-forward width; "" where unmodified code ties it to the hidden size
    kv_heads  number of key-value heads, "" where every query head has its own
    experts   feed-forward width of an expert, "" without experts
    routing   how many experts there are, and how tokens are sent to them; None where that is not known
    """

    layers: str
    heads: str
    neurons: str
    kv_heads: str = ""
    experts: str = ""
    routing: Routing | None = None


@dataclass(frozen=True)
class Residual:
    """The residual stream of a family: what unmodified code makes of the number of its dimensions.

    size     field of config.json that holds it
    norm     "rms" (root mean square); "rms+1", its weights stored less 1; "layer", which takes the mean away too
    scaled   embeddings are multiplied by the root of the size
    after    ends of the names of norms that stand between a part of a layer and the stream, as a regular expression
    divided  what the output head reads is divided by the root of the size, unless `tie_word_embeddings` is false
    rotates  attention reads what `input_layernorm` gives, the feed-forward part what `post_attention_layernorm` does, the head what
             the last norm does, and nothing else stands between any of them and the stream
    """

    size: str = "hidden_size"
    norm: str = "rms"
    scaled: bool = False
    after: str = ""
    divided: bool = False
    rotates: bool = False


@dataclass(frozen=True)
class Body:
    """One row of the table.

    stacks        "layers", or "encoder" and "decoder" -> its fields
    section       part of config.json that holds them, "" for the top
    head_size     field that holds the size of a head, "" where unmodified code divides the hidden size by the number of heads
    tied_if       field that, where it is set, makes unmodified code divide all the same
    fused         order inside a fused query-key-value projection: "parts" [q; k; v], "heads" [head: q k v], "groups" [group:
                  its queries, k, v], "configured" one of these, as config.json says
    key_values    number of key-value heads: "field" says it, "one" for all query heads, "own" one for each
    lists         fields with one entry per layer, gathered by kept layer; written out where config.json leaves them implicit
    alternates    layers are of several kinds, by their place where `lists` are written nowhere
    consults      other fields on which a slice depends
    first_bias    block 0 owns the position bias that all blocks use
    first_layer   why layer 0 cannot go, "" where it can
    first_if      field without which layer 0 can go all the same, "" where none decides
    norm_all      a norm spans all heads, so that no head can go
    slopes        positions enter by a slope for each head (ALiBi)
    head_counts   attributes of an unmodified attention module that hold its number of query heads
    head_widths   attributes that hold heads times head size
    even_heads    why heads must be as many in every layer even with per-layer sizes, "" where they need not
    renamed       tensors have other names on disk than in unmodified code, which converts them as it loads
    clients       other clients (see structure/clients.py) -> what they take: "layers", "heads", "neurons"
    places        stack -> what stands before the number of a layer, as a regular expression; empty where it has a usual name
    strided       gate and up projections that are fused alternate: gate, up, gate, up
    tables        ends of tensors outside of the layers that hold an equal part for each of them, regular expressions -> dimension
    refused       "layers", "heads", "neurons" or "experts" -> why none of them can be cut
    residual      how its hidden states can get fewer dimensions, None where that is not known
    """

    model_types: tuple[str, ...]
    stacks: Mapping[str, StackFields]
    section: str = ""
    head_size: str = ""
    tied_if: str = ""
    fused: str = ""
    key_values: str = "field"
    lists: tuple[str, ...] = ()
    alternates: bool = False
    consults: tuple[str, ...] = ()
    first_bias: bool = False
    first_layer: str = ""
    first_if: str = ""
    norm_all: bool = False
    slopes: bool = False
    head_counts: tuple[str, ...] = ("num_heads",)
    head_widths: tuple[str, ...] = ()
    even_heads: str = ""
    renamed: bool = False
    clients: Mapping[str, frozenset[str]] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    strided: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    residual: Residual | None = None

    def needs_defaults(self, config: Mapping[str, Any]) -> bool:
        """Whether config.json leaves something to its class that a slice depends on."""
        fields = [*self.lists, *self.consults, *filter(None, (self.tied_if, self.first_if))]
        for stack in self.stacks.values():
            fields += [name for name in (stack.layers, stack.heads, stack.kv_heads) if name]
            routing = stack.routing
            fields += [name for name in (routing.chosen, routing.groups, routing.top_groups) if name] if routing else []
        return any(name not in config for name in fields)

    def settled(self, config: Mapping[str, Any]) -> Body:
        """The row as one configuration makes it, with nothing left that depends on it.

        config  with the defaults of its class
        """
        fused, key_values = self.fused, self.key_values
        if fused == "configured":
            one = bool(config.get("multi_query"))
            fused, key_values = ("parts", "one") if one else ("heads", "own")
            if config.get("new_decoder_architecture"):
                fused, key_values = "groups", "field"
        return replace(
            self,
            fused=fused,
            key_values=key_values,
            head_size="" if self.tied_if and config.get(self.tied_if) else self.head_size,
            first_layer="" if self.first_if and not config.get(self.first_if) else self.first_layer,
        )


def expert_number(rest: str) -> int | None:
    """The number of the expert in the name of a layer's tensor, after the layer's own; None without one.

    Example   expert_number("mlp.experts.3.up_proj.weight") == 3
    """
    found = _EXPERT.search(rest)
    return int(found[1]) if found else None


def with_expert(rest: str, number: int) -> str:
    """The name of the same tensor of another expert."""
    found = _EXPERT.search(rest)
    return rest if found is None else f"{rest[: found.start(1)]}{number}{rest[found.end(1) :]}"


def is_routed(rest: str, axes: Collection[str]) -> bool:
    """Whether a tensor of a layer is multiplied with those tokens alone that a router sends to its expert, or experts."""
    return expert_number(rest) is not None or (
        "experts" in axes and (len(axes) > 2 or any(part == "experts" for part in rest.split(".")))
    )


def is_of_experts(rest: str, shape: tuple[int, ...]) -> bool:
    """Whether a feed-forward tensor is that of experts: by its name, or one matrix for each of them."""
    return "experts" in rest or (len(shape) == 3 and shape[-1] > 1)
