"""What a checkpoint's layers are made of, read from its tensors: stacks, attentions, heads and neurons by layer.

Sizes come from the shapes on disk, counts of heads from config.json (the only place that knows them), and both must
agree: a projection whose length is no multiple of its heads stops the job by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from langslice.errors import PlanError
from langslice.model.axes import TensorAxes, describe_tensors, find_vocabulary_size, is_tower
from langslice.model.body import Body, StackFields, expert_number, is_of_experts
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import body_of, family_of

_LAYER = re.compile(r"(?P<before>(?:.*?\.)?(?:layers|layer|block|h|albert_layers)\.)(?P<layer>\d+)\.(?P<rest>.+)")
_CROSS = re.compile(r"(?:.*\.)?(?:encoder_attn|EncDecAttention|cross_?attention|cross_attn)\.")
# Axes of the matrix that reads what the heads put out.
OUTPUT = ("hidden", "heads")
HEAD_AXES = frozenset({"heads", "kv_heads", "num_heads", "num_kv_heads", "qkv", "kv"})
# Stack -> how the names of classes end that have it and not the other one.
_HALVES = {
    "encoder": ("EncoderModel", "ForTokenClassification", "ForAudioClassification"),
    "decoder": ("ForCausalLM",),
}
NEURON_AXES = frozenset({"neurons", "gate_up"})


@dataclass(frozen=True)
class TensorLocation:
    """Where a tensor is.

    stack      "layers", "encoder" or "decoder"
    layer      number of its layer
    before     name before the number, "model.layers."
    rest       name after it, "self_attn.q_proj.weight"
    attention  "self" or "cross": the attention it would belong to
    """

    stack: str
    layer: int
    before: str
    rest: str
    attention: str

    @property
    def attention_key(self) -> str:
        """Name of its attention, "layers.self"."""
        return f"{self.stack}.{self.attention}"

    @property
    def expert(self) -> int | None:
        """Number of the expert that it belongs to alone; None where it belongs to none, or to all."""
        return expert_number(self.rest)


@dataclass(frozen=True)
class Heads:
    """One attention.

    query  query heads           key_value  key-value heads           size  dimensions of a head
    """

    query: int
    key_value: int
    size: int

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.query // self.key_value


@dataclass(frozen=True)
class Anatomy:
    """Everything that can be sliced in a model, in the numbering of the source.

    body     the row of its family, as its configuration makes it, with the stacks that the checkpoint has
    layers   stack -> number of layers
    heads    attention ("layers.self", "decoder.cross") -> layer -> its heads
    neurons  stack -> layer -> feed-forward width (of each expert, in a layer of experts)
    experts  stack -> layer -> number of experts that its router chooses from, where that is known
    expert_layers  stack -> layers whose neurons are those of experts
    axes     tensor of a layer -> its named axes, None where nothing is known of them
    places   tensor of a layer -> where it is
    config   the part of config.json that holds them, with the defaults of its class
    given    the same part as it is written
    """

    body: Body
    layers: Mapping[str, int]
    heads: Mapping[str, Mapping[int, Heads]]
    neurons: Mapping[str, Mapping[int, int]]
    experts: Mapping[str, Mapping[int, int]]
    expert_layers: Mapping[str, frozenset[int]]
    axes: Mapping[str, tuple[str, ...] | None]
    places: Mapping[str, TensorLocation]
    config: Mapping[str, Any]
    given: Mapping[str, Any]

    def fields(self, stack: str) -> StackFields:
        """Configuration fields of a stack."""
        return self.body.stacks[stack]

    def expert_groups(self, stack: str) -> tuple[int, int]:
        """How many equal groups a layer's experts stand in, and with how few of a group unmodified code runs.

        A token's experts are chosen from some of the groups, and these by the sum of their two best (DeepSeek-V3).
        """
        routing = self.fields(stack).routing
        names = ("", "", "") if routing is None else (routing.groups, routing.chosen, routing.top_groups)
        groups, chosen, top = ((self.config.get(name) if name else None) or 1 for name in names)
        return groups, chosen if groups == 1 else max(-(-chosen // top), 2)

    def sizes(self) -> dict[str, Any]:
        """How many layers, query and key-value heads, neurons, experts and hidden dimensions there are, as JSON.

        Layers are keys of text there.
        """
        residual = self.body.residual

        def by_layer(counts: Mapping[str, Mapping[int, int]]) -> dict[str, dict[str, int]]:
            return {stack: {str(layer): count for layer, count in rows.items()} for stack, rows in counts.items()}

        return {
            "layers": dict(self.layers),
            "heads": {
                place: {str(layer): [heads.query, heads.key_value] for layer, heads in rows.items()}
                for place, rows in self.heads.items()
            },
            "neurons": by_layer(self.neurons),
            **({"experts": by_layer(self.experts)} if any(self.experts.values()) else {}),
            **({"hidden": hidden} if residual is not None and (hidden := self.config.get(residual.size)) else {}),
        }


def is_cross_attention(name: str) -> bool:
    """Whether a tensor belongs to an attention over the states of an encoder."""
    return _CROSS.match(name) is not None


def find_place(name: str, body: Body) -> TensorLocation | None:
    """Where a tensor is; None outside the stacks."""
    if is_tower(name):
        return None
    if body.places:
        return _find_derived(name, body)
    found = _LAYER.fullmatch(name)
    if found is None:
        return None
    before, rest = found["before"], found["rest"]
    if "layers" in body.stacks:
        stack = "layers"
    else:
        stack = next((side for side in body.stacks if re.search(rf"(?:^|\.){side}\.", before)), "")
        if not stack:
            return None
    return TensorLocation(stack, int(found["layer"]), before, rest, "cross" if is_cross_attention(rest) else "self")


def _find_derived(name: str, body: Body) -> TensorLocation | None:
    """Where a tensor is by the paths of a row; None outside the stacks."""
    for stack, path in body.places.items():
        found = re.fullmatch(rf"(?P<before>(?:.*?\.)?(?:{path})\.)(?P<layer>\d+)\.(?P<rest>.+)", name)
        if found is not None:
            rest = found["rest"]
            side = "cross" if is_cross_attention(rest) else "self"
            return TensorLocation(stack, int(found["layer"]), found["before"], rest, side)
    return None


def read_anatomy(checkpoint: Checkpoint, described: Mapping[str, TensorAxes] | None = None) -> Anatomy:
    """Find stacks, heads and neurons of a checkpoint.

    described  axes of its tensors, where they are known
    Raises   PlanError where a family is not in the table, or the tensors contradict config.json
    """
    from langslice.model.transformers_classes import full_config

    body = body_of(checkpoint.config)
    family = family_of(checkpoint.config)
    given: Mapping[str, Any] = checkpoint.config
    if body.section:
        given = given.get(body.section, {})
    whole: Mapping[str, Any] = given
    if body.needs_defaults(given):  # asking the class takes seconds, for its imports
        full = full_config(checkpoint.config)
        whole = {**(full.get(body.section) or {} if body.section else full), **given}
    if "sliced_shapes" in whole:
        raise PlanError(
            "this model is a slice with layers of different sizes, which cannot be sliced again",
            hint="slice the model it was made from, with everything that goes in one job",
        )
    places = {name: place for name in checkpoint.tensors if (place := find_place(name, body)) is not None}
    # bitsandbytes packs two weights of four bits into a byte, whatever their rows and columns were.
    plain = {name: checkpoint.shapes[name] for name in places if checkpoint.tensors[name].dtype != "U8"}
    if described is None:
        described = describe_tensors(family, plain, find_vocabulary_size(family, checkpoint.shapes), cut=True)
    axes = {name: described[name].axes if name in plain else None for name in places}
    body = _with_its_stacks(body.settled(whole), places, checkpoint.config)
    layers = _count_layers(body, places, whole)
    shapes = {name: checkpoint.tensors[name].shape for name in places}
    heads = {}
    for key in sorted({place.attention_key for place in places.values()}):
        by_layer = _heads_of(body, whole, key, places, axes, shapes)
        if by_layer:
            heads[key] = by_layer
    of_neurons = {} if "neurons" in body.refused else places
    neurons, expert_layers = _neurons_of(body, of_neurons, axes, shapes)
    experts = _experts_of(body, places, axes, shapes)
    return Anatomy(body, layers, heads, neurons, experts, expert_layers, axes, places, whole, given)


def _with_its_stacks(body: Body, places: Mapping[str, TensorLocation], config: Mapping[str, Any]) -> Body:
    """The row without the stack that a model of one half, such as T5EncoderModel, does not have."""
    found = {place.stack for place in places.values()}
    names = [str(name) for name in config.get("architectures") or ()]
    if len(found) == 1 and any(name.endswith(_HALVES.get(stack, ())) for stack in found for name in names):
        return replace(body, stacks={stack: body.stacks[stack] for stack in found})
    return body


def _count_layers(body: Body, places: Mapping[str, TensorLocation], config: Mapping[str, Any]) -> dict[str, int]:
    layers: dict[str, int] = {}
    for stack, fields in body.stacks.items():
        found = {place.layer for place in places.values() if place.stack == stack}
        if not found:
            raise PlanError(f"no tensor of this checkpoint is in a layer of its {stack} stack")
        names = sorted({place.before for place in places.values() if place.stack == stack})
        if len(names) > 1 and "layers" not in body.refused:
            raise PlanError(
                f"layers of the {stack} stack are counted more than once: under {names[0]} and {names[1]}",
                hint="models with several groups of layers (ALBERT's `num_hidden_groups`) can have their vocabulary sliced",
            )
        layers[stack] = max(found) + 1
        expected = config.get(fields.layers) if fields.layers else layers[stack]
        expected = len(expected) if isinstance(expected, list) else expected
        if found != set(range(layers[stack])) or expected != layers[stack]:
            raise PlanError(
                f"config.json says {fields.layers} = {expected}, the tensors have layers {sorted(found)}",
                hint="the checkpoint is incomplete, or its configuration is that of another model",
            )
    return layers


def _heads_of(
    body: Body,
    config: Mapping[str, Any],
    key: str,
    places: Mapping[str, TensorLocation],
    axes: Mapping[str, tuple[str, ...] | None],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[int, Heads]:
    """Heads of one attention in each layer that has it."""
    stack = key.split(".")[0]
    fields = body.stacks[stack]
    if not fields.heads:  # a derived row, which says why in `refused`
        return {}
    query = _count_of(config, fields.heads)
    found: dict[int, Heads] = {}
    for name, place in places.items():
        if place.attention_key != key or axes[name] is None:
            continue
        named = axes[name] or ()
        for wide in ("heads", "qkv"):
            if wide in named and len(named) == 2:
                length = shapes[name][named.index(wide)]
                key_value = _key_value_heads(body, config, fields, query)
                if key_value > query:
                    raise PlanError(
                        f"config.json: {key_value} key-value heads (`{fields.kv_heads}`) for {query} query heads "
                        f"(`{fields.heads}`)",
                        hint="query heads share key-value heads, so these are fewer or as many",
                    )
                count = query if wide == "heads" else query + 2 * key_value
                if length % count or length < count:
                    raise PlanError(
                        f"{name} has {length} rows, which {count} heads do not divide",
                        hint=f"is `{fields.heads}` in config.json right?",
                    )
                # Queries may be wider than what the output projection reads: it says the size of a head.
                if place.layer not in found or named == OUTPUT:
                    found[place.layer] = Heads(query, key_value, length // count)
    return found


def _key_value_heads(body: Body, config: Mapping[str, Any], fields: StackFields, query: int) -> int:
    if body.key_values != "field":
        return 1 if body.key_values == "one" else query
    return _count_of(config, fields.kv_heads) if fields.kv_heads and config.get(fields.kv_heads) else query


def _count_of(config: Mapping[str, Any], field: str) -> int:
    found = config[field]
    if type(found) is not int or found < 1:
        raise PlanError(f"config.json: `{field}` must be a whole number from 1, found {found!r}")
    return found


def _neurons_of(
    body: Body,
    places: Mapping[str, TensorLocation],
    axes: Mapping[str, tuple[str, ...] | None],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, dict[int, int]], dict[str, frozenset[int]]]:
    """Feed-forward width of each layer, and the layers in which it is that of experts."""
    neurons: dict[str, dict[int, int]] = {stack: {} for stack in body.stacks}
    experts: dict[str, set[int]] = {stack: set() for stack in body.stacks}
    for name, place in places.items():
        for dim, axis in enumerate(axes[name] or ()):
            if axis == "neurons":
                length = shapes[name][dim]
                if "shared_expert" in place.rest:  # experts that are shared may be wider
                    continue
                known = neurons[place.stack].setdefault(place.layer, length)
                if known != length:
                    raise PlanError(f"{name} has {length} neurons, other tensors of its layer have {known}")
                if is_of_experts(place.rest, shapes[name]):
                    experts[place.stack].add(place.layer)
    return neurons, {stack: frozenset(found) for stack, found in experts.items()}


def _experts_of(
    body: Body,
    places: Mapping[str, TensorLocation],
    axes: Mapping[str, tuple[str, ...] | None],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, dict[int, int]]:
    """Experts of each layer that has some, by the numbers in names and the lengths along their axis, which must agree."""
    counted: dict[str, dict[int, int]] = {stack: {} for stack in body.stacks}
    numbered: dict[tuple[str, int], set[int]] = {}
    for name, place in places.items():
        if body.stacks[place.stack].routing is None or "experts" in body.refused:
            continue
        if place.expert is not None:
            numbered.setdefault((place.stack, place.layer), set()).add(place.expert)
        for dim, axis in enumerate(axes[name] or ()):
            if axis == "experts":
                known = counted[place.stack].setdefault(place.layer, shapes[name][dim])
                if known != shapes[name][dim]:
                    raise PlanError(f"{name} has {shapes[name][dim]} experts, other tensors of its layer have {known}")
    for (stack, layer), numbers in numbered.items():
        count = counted[stack].setdefault(layer, max(numbers) + 1)
        if numbers != set(range(count)):
            raise PlanError(
                f"layer {layer} of the {stack} stack has experts {sorted(numbers)[:3]}... to {max(numbers)}, its router {count}",
                hint="the checkpoint is incomplete, or its configuration is that of another model",
            )
    return {stack: dict(sorted(rows.items())) for stack, rows in counted.items()}
