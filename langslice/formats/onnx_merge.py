"""One ONNX file of two: the first step of a decoder and a later one, chosen by an input, with their weights held once.

`decoder_model_merged.onnx` of transformers.js and Optimum has both as the branches of an `If` on `use_cache_branch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SWITCH = "use_cache_branch"


def merge(first: Path, later: Path, path: Path) -> None:
    """Write a file that computes `later` where `use_cache_branch` is true, else `first`.

    Its inputs are those of `later`, which hold those of `first`, and the switch; its outputs those of `first`: what `later`
    does not compute, it passes on from the input of that name.
    """
    import onnx
    from onnx import TensorProto, helper

    graphs = [onnx.load(str(each)) for each in (first, later)]
    weights: dict[str, Any] = {}
    for side, model in zip(("first", "later"), graphs, strict=True):
        _share(model.graph, weights)
        _rename(model.graph, side)
    taken = {value.name: value for value in graphs[1].graph.input}
    outputs = list(graphs[0].graph.output)
    branches = [
        _branch(model.graph, side, outputs, taken) for side, model in zip(("first", "later"), graphs, strict=True)
    ]
    switch = helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, [1])
    choose = helper.make_node(
        "If",
        [SWITCH],
        [value.name for value in outputs],
        name="choose",
        then_branch=branches[1],
        else_branch=branches[0],
    )
    graph = helper.make_graph([choose], "decoder", [*taken.values(), switch], outputs, list(weights.values()))
    merged = helper.make_model(graph, opset_imports=graphs[0].opset_import, ir_version=graphs[0].ir_version)
    onnx.checker.check_model(merged)
    onnx.save(merged, str(path))


def _share(graph: Any, weights: dict[str, Any]) -> None:
    """Move weights out of a graph; equal ones get one name."""
    from onnx import numpy_helper

    names = {}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        digest = hashlib.sha256(values.tobytes()).hexdigest()[:16]
        name = f"weight/{tensor.data_type}/{'x'.join(map(str, tensor.dims))}/{digest}"
        names[tensor.name] = name
        if name not in weights:
            weights[name] = numpy_helper.from_array(values, name)
            weights[name].data_type = tensor.data_type
    del graph.initializer[:]
    _replace(graph, names)


def _rename(graph: Any, side: str) -> None:
    """Give what a graph computes names of its own, so that no branch hides what lies around it."""
    _replace(graph, {name: f"{side}/{name}" for node in graph.node for name in node.output if name})
    for node in graph.node:
        node.name = f"{side}/{node.name}"


def _replace(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        if any(each.HasField("g") for each in node.attribute):
            raise ValueError(f"{node.name}: a graph within a graph")
        for values in (node.input, node.output):
            for at, name in enumerate(values):
                values[at] = names.get(name, name)


def _branch(graph: Any, side: str, outputs: list[Any], taken: Mapping[str, Any]) -> Any:
    """A graph without inputs, which sees those around it, with all outputs."""
    from onnx import helper

    made = {name for node in graph.node for name in node.output}
    nodes, values = list(graph.node), []
    for value in outputs:
        own = f"{side}/{value.name}"
        if own not in made:
            passed = value.name.replace("present.", "past_key_values.")
            nodes.append(helper.make_node("Identity", [passed], [own], name=f"{side}/pass {passed}"))
        values.append(helper.make_tensor_value_info(own, value.type.tensor_type.elem_type, None))
    return helper.make_graph(nodes, side, [], values)
