"""Layers, heads and neurons of a GGUF file: what is asked, whether llama.cpp and the blocks allow it, what tensors become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langslice.errors import CheckpointError, PlanError
from langslice.formats.families import FAMILIES, GgufFamily
from langslice.formats.gguf_in.container import GgufSource, StoredTensor
from langslice.formats.gguf_in.metadata import KeptParts, vocabulary_size
from langslice.model.anatomy import Anatomy, Heads
from langslice.model.body import Body, StackFields
from langslice.options import Choice, listed
from langslice.structure.dropped_parts import Dropped, heads_dropped, kept_layers, neurons_dropped
from langslice.structure.kept import Kept

Indices = Mapping[int, np.ndarray]
_STACK, _ATTENTION = "layers", "layers.self"
_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_ALONG_VOCABULARY = re.compile(r"(?:token_embd|output)\.(?:weight|bias)")
# Outside of the layers, and the same for all of them and all tokens.
_WHOLE = re.compile(
    r"(?:output_norm|token_embd_norm|position_embd|token_types|rope_freqs|cls(?:\.output)?)\.(?:weight|bias)"
)
# Ends of names in a layer -> what their rows, and what the numbers of a row, run along.
_AXES = {
    "attn_q.weight": ("heads", None), "attn_q.bias": ("heads",),
    "attn_k.weight": ("kv_heads", None), "attn_k.bias": ("kv_heads",),
    "attn_v.weight": ("kv_heads", None), "attn_v.bias": ("kv_heads",),
    "attn_output.weight": (None, "heads"),
    "ffn_up.weight": ("neurons", None), "ffn_gate.weight": ("neurons", None), "ffn_down.weight": (None, "neurons"),
    "ffn_up.bias": ("neurons",), "ffn_gate.bias": ("neurons",),
}  # fmt: skip
_ACROSS = frozenset(
    {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm", "attn_output_norm"}
    | {"layer_output_norm"}
)
_BIASES = frozenset({"attn_output.bias", "ffn_down.bias"})


@dataclass(frozen=True)
class TensorCut:
    """A tensor of the result.

    source   tensor that it comes from
    name     in the result
    indices  dimension of its blocks -> indices that stay; bytes of a block are no dimension
    """

    source: StoredTensor
    name: str
    indices: Indices

    @property
    def shape(self) -> tuple[int, ...]:
        """In numbers, as the header says it."""
        blocks = [
            len(self.indices[dim]) if dim in self.indices else size for dim, size in enumerate(self.source.blocks)
        ]
        return (*blocks[:-1], blocks[-1] * self.source.block)

    @property
    def size_bytes(self) -> int:
        """Bytes of its blocks."""
        return int(np.prod(self.shape, dtype=np.int64)) // self.source.block * self.source.block_bytes


def family_of(source: GgufSource) -> GgufFamily:
    """What llama.cpp takes for granted of a file's kind of model.

    Raises  CheckpointError for one that is not known
    """
    known = {family.architecture: family for family in FAMILIES.values() if not family.offset}
    if source.architecture not in known:
        raise CheckpointError(
            f"{source.path}: GGUF files of the kind {source.architecture or '(none)'} are not understood\n"
            f"  understood are {', '.join(known)}",
            "slice the model that the file was made from",
        )
    return known[source.architecture]


def layer_count(source: GgufSource) -> int:
    """Layers of a file."""
    return int(source.value(f"{source.architecture}.block_count", 0))


def anatomy_of(source: GgufSource) -> Anatomy:
    """Layers, heads and neurons, as the metadata says."""
    prefix, layers = source.architecture, range(layer_count(source))

    def by_layer(name: str, default: object = 0) -> list[int]:
        value = source.value(f"{prefix}.{name}", default)
        return [int(each) for each in (value if isinstance(value, list) else [value] * len(layers))]

    query = by_layer("attention.head_count")
    key_value = by_layer("attention.head_count_kv", query)
    width = by_layer("feed_forward_length")
    size = int(source.value(f"{prefix}.attention.key_length", 0)) or source.value(
        f"{prefix}.embedding_length", 0
    ) // max(query[0] if query else 1, 1)
    body = Body((prefix,), {_STACK: StackFields("block_count", "head_count", "feed_forward_length")})
    return Anatomy(
        body,
        layers={_STACK: len(layers)},
        heads={_ATTENTION: {at: Heads(query[at], key_value[at], size) for at in layers}},
        neurons={_STACK: {at: width[at] for at in layers}},
        experts={},
        expert_layers={},
        axes={},
        places={},
        config={},
        given={},
    )


def cut_tensors(
    source: GgufSource, family: GgufFamily, choice: Choice, rows: np.ndarray | None
) -> tuple[KeptParts, list[TensorCut]]:
    """What stays of layers, heads and neurons, and every tensor of the result.

    rows    (n,) int64 rows of the vocabulary that stay; None where all do
    Raises  PlanError for what cannot be expressed, CheckpointError for a tensor that is not understood
    """
    anatomy = anatomy_of(source)
    layers = kept_layers(
        anatomy, keep=listed(choice.get("layers")), drop=listed(choice.get("drop_layers")),
        first=listed(choice.get("first_layers")), every=listed(choice.get("every_layer")),
    ).get(_STACK)  # fmt: skip
    stay = tuple(range(anatomy.layers[_STACK])) if layers is None else layers
    if layers is not None:
        _check_pattern(source, family, layers)
    neurons = _kept_neurons(source, anatomy, neurons_dropped(anatomy, listed(choice.get("drop_neurons"))), stay)
    heads, groups = _kept_heads(anatomy, family, heads_dropped(anatomy, listed(choice.get("drop_heads"))), stay)
    places = {"neurons": neurons, "heads": heads, "kv_heads": groups}
    sizes = _sizes(source, anatomy, places)
    cuts = []
    for name, tensor in source.tensors.items():
        found = _LAYER.fullmatch(name)
        if found is None:
            cuts.append(TensorCut(tensor, name, _outside(source, tensor, rows, layers)))
        elif int(found[1]) in stay:
            renamed = f"blk.{stay.index(int(found[1]))}.{found[2]}"
            cuts.append(TensorCut(tensor, renamed, _inside(source, tensor, int(found[1]), found[2], places)))
    structure = _structure(anatomy, layers, neurons, heads)
    return KeptParts(rows=rows, layers=layers, sizes=sizes, structure=structure), cuts


def _structure(
    anatomy: Anatomy,
    layers: tuple[int, ...] | None,
    neurons: Mapping[int, np.ndarray],
    queries: Mapping[int, np.ndarray],
) -> Kept | None:
    """What stays as a plan says it; None where all does."""
    if layers is None and not neurons and not queries:
        return None
    sizes = {layer: heads.size for layer, heads in anatomy.heads[_ATTENTION].items()}
    return Kept(
        layers={} if layers is None else {_STACK: layers},
        neurons={_STACK: {layer: tuple(stay.tolist()) for layer, stay in neurons.items()}} if neurons else {},
        heads={_ATTENTION: {at: tuple((rows[:: sizes[at]] // sizes[at]).tolist()) for at, rows in queries.items()}}
        if queries
        else {},
    )


def _outside(
    source: GgufSource, tensor: StoredTensor, rows: np.ndarray | None, layers: Sequence[int] | None
) -> dict[int, np.ndarray]:
    """Indices of a tensor that is in no layer."""
    size = vocabulary_size(source)
    if rows is not None and _ALONG_VOCABULARY.fullmatch(tensor.name):
        if tensor.shape[0] != size:
            raise CheckpointError(f"{source.path}: {tensor.name} has {tensor.shape[0]:,} rows, of {size:,} tokens")
        return {0: rows}
    if _WHOLE.fullmatch(tensor.name) or _ALONG_VOCABULARY.fullmatch(tensor.name):
        return {}
    if (rows is not None and size in tensor.shape) or (layers is not None and layer_count(source) in tensor.shape):
        raise CheckpointError(
            f"{source.path}: {tensor.name} {tensor.shape} may have a part for each token or layer, and is not understood; "
            "nothing was written"
        )
    return {}


def _inside(
    source: GgufSource, tensor: StoredTensor, layer: int, end: str, places: Mapping[str, Mapping[int, np.ndarray]]
) -> dict[int, np.ndarray]:
    """Indices of a tensor of a layer, in blocks."""
    if not any(places.values()) or end.rsplit(".", 1)[0] in _ACROSS or end in _BIASES:
        return {}
    if end not in _AXES:
        raise CheckpointError(
            f"{source.path}: {tensor.name} is not understood where heads or neurons go; nothing was written"
        )
    found = {}
    for dim, axis in enumerate(_AXES[end]):
        stay = places[axis].get(layer) if axis else None
        if stay is not None:
            found[dim] = _blocks(tensor, stay) if dim == len(tensor.shape) - 1 else stay
    return found


def _blocks(tensor: StoredTensor, stay: np.ndarray) -> np.ndarray:
    """Blocks along the last dimension, where all numbers of each stay or go."""
    counts = np.bincount(stay // tensor.block, minlength=tensor.blocks[-1])
    split = np.flatnonzero((counts > 0) & (counts < tensor.block))
    if split.size:
        first = int(split[0]) * tensor.block
        raise PlanError(
            f"{tensor.name} is stored as {tensor.kind_name}, in blocks of {tensor.block}: what goes would part the block "
            f"{first}-{first + tensor.block - 1}",
            "drop whole blocks, or slice the model that the file was made from",
        )
    return np.flatnonzero(counts)


def _kept_neurons(
    source: GgufSource, anatomy: Anatomy, dropped: Dropped, layers: Sequence[int]
) -> dict[int, np.ndarray]:
    """Layer -> neurons that stay; empty where all do."""
    gone = dropped.get(_STACK, {})
    if not gone:
        return {}
    widths = anatomy.neurons[_STACK]
    found = {layer: np.array(sorted(set(range(widths[layer])) - gone.get(layer, set()))) for layer in layers}
    _check_even({layer: len(stay) for layer, stay in found.items()}, "neurons", "--drop-neurons")
    return found


def _kept_heads(
    anatomy: Anatomy, family: GgufFamily, dropped: Dropped, layers: Sequence[int]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Layer -> rows of queries that stay, and of keys and values; empty where all do."""
    gone = dropped.get(_ATTENTION, {})
    if not gone:
        return {}, {}
    if family.square:
        raise PlanError(
            f"--drop-heads: llama.cpp divides the hidden size of {family.architecture} by its heads, so that none can go"
        )
    queries: dict[int, np.ndarray] = {}
    groups: dict[int, np.ndarray] = {}
    for layer in layers:
        one = anatomy.heads[_ATTENTION][layer]
        stay = np.array(sorted(set(range(one.query)) - gone.get(layer, set())), dtype=np.int64)
        shared = np.bincount(stay // one.group, minlength=one.key_value)
        if ((shared > 0) & (shared < one.group)).any():
            raise PlanError(
                f"--drop-heads: {one.group} heads share a key and value in layer {layer}, and go together",
                f"drop whole groups, such as {layer}:0-{one.group - 1}",
            )
        queries[layer], groups[layer] = _spread(stay, one.size), _spread(np.flatnonzero(shared), one.size)
    _check_even({layer: len(stay) for layer, stay in queries.items()}, "heads", "--drop-heads")
    return queries, groups


def _spread(heads: np.ndarray, size: int) -> np.ndarray:
    """Rows of heads. Example: heads 0 and 2 of size 2 -> 0, 1, 4, 5."""
    found: np.ndarray = (heads[:, None] * size + np.arange(size)).ravel()
    return found


def _check_even(counts: Mapping[int, int], what: str, flag: str) -> None:
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise PlanError(
            f"{flag}: llama.cpp expects as many {what} in every layer, this would leave "
            + ", ".join(f"{count:,} in layer {layer}" for layer, count in counts.items()),
            "drop as many in each",
        )


def _sizes(source: GgufSource, anatomy: Anatomy, places: Mapping[str, Mapping[int, np.ndarray]]) -> dict[str, int]:
    """Numbers of the metadata that heads and neurons change."""
    found: dict[str, int] = {}
    if places["neurons"]:
        found["feed_forward_length"] = len(next(iter(places["neurons"].values())))
    if places["heads"]:
        size = next(iter(anatomy.heads[_ATTENTION].values())).size
        found["attention.head_count"] = len(next(iter(places["heads"].values()))) // size
        found["attention.head_count_kv"] = len(next(iter(places["kv_heads"].values()))) // size
        # Said from now on: what llama.cpp would work out of fewer heads is another size.
        found |= {"attention.key_length": size, "attention.value_length": size}
    return found


def _check_pattern(source: GgufSource, family: GgufFamily, stay: Sequence[int]) -> None:
    """Refuse layers whose kind of attention would change, where llama.cpp tells kinds by places."""
    every = family.full_every
    written = source.entries.get(f"{source.architecture}.attention.sliding_window_pattern")
    if not every or (written is not None and written.count is not None):
        return
    moved = [old for new, old in enumerate(stay) if ((old + 1) % every == 0) != ((new + 1) % every == 0)]
    if moved:
        raise PlanError(
            f"llama.cpp lets every {every}th layer of {source.architecture} see all positions, and tells them by their place: "
            f"layer {moved[0]} would become one of the other kind",
            f"drop layers at the end (--first-layers {layer_count(source) - 1}), or {every} together",
        )
