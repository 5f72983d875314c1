"""Where an unmodified model computes heads and neurons: its modules, found by the same table as the tensors on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langslice.model.anatomy import Anatomy, find_place
from langslice.model.axes import describe_tensor, find_vocabulary_size
from langslice.model.families import family_of

# The matrix whose output the non-linearity reads, where there are two.
_GATES = ("gate_proj", "wi_0", "w1")


@dataclass(frozen=True)
class Sites:
    """Modules by place and layer, in the numbering of the source.

    layers   stack -> layer -> the whole block
    heads    attention -> layer -> output projection; its input is the heads' outputs, one after another
    neurons  stack -> layer -> second matrix of the feed-forward part; its input is the neurons' outputs
    gates    stack -> layer -> first matrix, up to the non-linearity; the first `width` of its outputs are its arguments
    """

    layers: Mapping[str, Mapping[int, Any]]
    heads: Mapping[str, Mapping[int, Any]]
    neurons: Mapping[str, Mapping[int, Any]]
    gates: Mapping[str, Mapping[int, Any]]


def find_sites(model: Any, anatomy: Anatomy) -> Sites:
    """Find the modules of an unmodified model. Experts in one tensor have no module of their own and are left out."""
    config = model.config.to_dict()
    family = family_of(config)
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    rows = frozenset({find_vocabulary_size(family, parameters)})
    layers: dict[str, dict[int, Any]] = {}
    found: dict[str, dict[str, dict[int, Any]]] = {"heads": {}, "neurons": {}, "gates": {}}
    for name, shape in parameters.items():
        place = find_place(name, anatomy.body)
        if place is None:
            continue
        block = layers.setdefault(place.stack, {})
        if place.layer not in block:
            block[place.layer] = model.get_submodule(f"{place.before}{place.layer}")
        axes = describe_tensor(family, name, shape, rows).axes
        if axes is None or len(axes) != 2 or not name.endswith(".weight"):
            continue
        module = name.removesuffix(".weight")
        inputs, outputs = axes if _is_conv1d(model, module) else axes[::-1]
        if inputs == "heads" and outputs == "hidden":
            found["heads"].setdefault(place.attention_key, {})[place.layer] = model.get_submodule(module)
        elif "experts" in place.rest:
            continue
        elif inputs == "neurons":
            found["neurons"].setdefault(place.stack, {})[place.layer] = model.get_submodule(module)
        elif outputs in ("neurons", "gate_up"):
            known = found["gates"].setdefault(place.stack, {})
            if place.layer not in known or module.rpartition(".")[2] in _GATES:
                known[place.layer] = model.get_submodule(module)
    return Sites(layers, found["heads"], found["neurons"], found["gates"])


def _is_conv1d(model: Any, module: str) -> bool:
    """Whether a matrix is stored as (in, out): GPT-2's own kind of linear layer."""
    return hasattr(model.get_submodule(module), "nf")
