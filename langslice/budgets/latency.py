"""How long a model reads: where the time goes in the original, and a slice and its original in turn.

A pass reads the lines one by one, as a server answers one request. Within a layer, time is taken to go with its weights; what a
model spends on its output head, with the rows. On a CPU, time is that of the process, which others on the machine do not lengthen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter, process_time
from typing import Any, Final

from langslice.budgets.cut import Layer
from langslice.budgets.limits import Need
from langslice.evaluation.loaded_model import Loaded, load_model
from langslice.files.gather_rows import sliced_shape
from langslice.planning.plan import SlicePlan
from langslice.planning.size_limit import narrowed
from langslice.planning.source import Source
from langslice.scoring.model_runs import hooked
from langslice.scoring.sites import find_sites
from langslice.structure.edits import layer_edits
from langslice.structure.hidden_size import hidden_size
from langslice.structure.kept import Kept
from langslice.tradeoffs.in_memory import transformer_in_memory

# Lines of each language, and passes over them: the fastest counts.
_LINES: Final = 8
_PASSES: Final = 7


@dataclass(frozen=True)
class Times:
    """Where the time of the original goes, as shares of it.

    layers   (stack, layer) -> share
    head     of what turns states into logits; 0 for an encoder
    seconds  of the whole pass
    """

    layers: Mapping[Layer, float]
    head: float
    seconds: float


def timed_lines(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines that are read for time: the first few of each language."""
    return [line for lines in texts.values() for line in lines[:_LINES]]


def measure_times(source: Source, lines: Sequence[str]) -> Times:
    """Read lines with the original, watching its layers."""
    loaded = load_model(source.checkpoint.model_folder)
    sites = find_sites(loaded.model, source.anatomy)
    inputs = _inputs(loaded, lines)
    _pass(loaded, inputs)  # the first pass allocates
    spent: dict[Layer, float] = {}
    began: dict[Layer, float] = {}
    hooks = []
    for stack, layers in sites.layers.items():
        for at, module in layers.items():
            hooks += _watching(module, (stack, at), _clock(loaded), began, spent)
    best, found = float("inf"), {}
    with hooked(hooks):
        for _ in range(_PASSES):
            spent.clear()
            seconds = _pass(loaded, inputs)
            if seconds < best:
                best, found = seconds, dict(spent)
    shares = {layer: spent / best for layer, spent in found.items()}
    head = 0.0 if loaded.kind == "encoder" else max(1 - sum(shares.values()), 0.0)
    return Times(shares, head, best)


def _clock(loaded: Loaded) -> Callable[[], float]:
    """What time is read from: seconds."""
    if loaded.model.device.type != "cuda":
        return process_time

    def waited() -> float:
        import torch

        torch.cuda.synchronize()
        return perf_counter()

    return waited


def _watching(
    module: Any, layer: Layer, now: Callable[[], float], began: dict[Layer, float], spent: dict[Layer, float]
) -> list[Any]:
    def before(module: Any, args: Any) -> None:
        began[layer] = now()

    def after(module: Any, args: Any, output: Any) -> None:
        spent[layer] = spent.get(layer, 0.0) + now() - began[layer]

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def time_need(source: Source, times: Times, kept: Kept | None) -> Need:
    """What share of the original's time a structure takes, and each row of the vocabulary."""
    whole = dict.fromkeys(times.layers, 0)
    left = dict.fromkeys(times.layers, 0)
    anatomy, shapes = source.anatomy, source.checkpoint.shapes
    edits = {} if kept is None else layer_edits(anatomy, kept, shapes)
    hidden = 0 if kept is None else len(kept.hidden)
    for name, place in anatomy.places.items():
        layer = (place.stack, place.layer)
        whole[layer] += prod(shapes[name])
        edit = edits.get(name)
        if edit is None or edit.action != "drop":
            shape = shapes[name] if edit is None else sliced_shape(shapes[name], edit.indices)
            left[layer] += prod(narrowed(shape, source.axes[name].axes, hidden))
    rest = max(1 - sum(times.layers.values()) - times.head, 0.0)
    layers = sum(share * left[layer] / max(whole[layer], 1) for layer, share in times.layers.items())
    head = times.head * (hidden / hidden_size(anatomy) if hidden else 1)
    return Need(rest + layers, head / source.rows)


def measure_latency(source: Source, plan: SlicePlan, lines: Sequence[str]) -> float:
    """The time of a slice as a share of the original's, which take turns."""
    whole = load_model(source.checkpoint.model_folder)
    with transformer_in_memory(source, plan) as small:
        best: dict[str, float] = {}
        read = {"whole": (whole, _inputs(whole, lines)), "small": (small, _inputs(small, lines))}
        for turn in range(_PASSES + 1):
            for name, (loaded, inputs) in read.items():
                seconds = _pass(loaded, inputs)
                if turn:  # the first pass allocates
                    best[name] = min(best.get(name, seconds), seconds)
        del read
    return best["small"] / best["whole"]


def _inputs(loaded: Loaded, lines: Sequence[str]) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"return_tensors": "pt", "truncation": loaded.max_length is not None, "verbose": False}
    if loaded.max_length is not None:
        options["max_length"] = loaded.max_length
    found = []
    for line in lines:
        encoded = loaded.tokenizer(line, **options).to(loaded.model.device)
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if loaded.kind == "seq2seq":
            inputs["decoder_input_ids"] = inputs["input_ids"]
        found.append(inputs)
    return found


def _pass(loaded: Loaded, inputs: Sequence[dict[str, Any]]) -> float:
    import torch

    now = _clock(loaded)
    started = now()
    with torch.inference_mode():
        for one in inputs:
            loaded.model(**one)
    return now() - started
