"""Scores of layers and neurons that need forward passes only.

Block Influence: Men et al. 2024, arXiv 2403.03853. Angular distance of a run of layers: Gromov et al. 2024, arXiv 2403.17887.
Activation and its probability by language: Tang et al. 2024, arXiv 2402.16438. Weights of one layer at a time are in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from langslice.errors import ScoreError
from langslice.progress import Report, silent
from langslice.scoring.batches import Batch
from langslice.scoring.mapped_model import one_layer_at_a_time
from langslice.scoring.model_runs import Running, hooked, skipping_layers, watching_layers
from langslice.scoring.table import Values


def block_influence(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """1 - the mean cosine of a layer's input and output over tokens; a layer that changes little scores low.

    Returns  stack -> layer -> (1,) float64
    """
    import torch

    totals: dict[tuple[str, int], float] = {}
    batch = batches[0]

    def seen(stack: str, layer: int, before: Any, after: Any) -> None:
        cosine = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)  # (lines, width)
        totals[stack, layer] = totals.get((stack, layer), 0.0) + float(cosine[batch.masks[stack]].double().sum())

    hooks = watching_layers(running.sites, seen)
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad(), hooked(hooks):
        for batch in batches:
            running.hidden(batch)
    tokens = {stack: sum(int(one.masks[stack].sum()) for one in batches) for stack in running.sites.layers}
    return _of_layers({key: 1 - total / tokens[key[0]] for key, total in totals.items()})


def angular_distance(running: Running, batches: Sequence[Batch], seed: int, *, run: int) -> Values:
    """Angle between the input of layer l and that of layer l + run, as a share of pi, by its first layer l.

    Taken at the last token of causal stacks (a later token has seen the others), over all tokens elsewhere.
    Returns  stack -> layer -> (1,) float64
    Raises   ScoreError when a stack does not have that many layers
    """
    import torch

    for stack, count in running.anatomy.layers.items():
        if not 0 < run < count:
            raise ScoreError(
                f"a run of {run} layers does not fit the {count} layers of `{stack}`, one of which must stay"
            )
    totals: dict[tuple[str, int], float] = {}
    waiting: dict[tuple[str, int], Any] = {}
    picks: dict[str, Any] = {}

    def seen(stack: str, layer: int, before: Any, after: Any) -> None:
        waiting[stack, layer] = before.float()[picks[stack]]  # (picked tokens, hidden)
        first = layer - run + 1
        if first >= 0:
            left, right = waiting.pop((stack, first)), after.float()[picks[stack]]
            cosine = torch.nn.functional.cosine_similarity(left.double(), right.double(), dim=-1).clamp(-1, 1)
            totals[stack, first] = totals.get((stack, first), 0.0) + float((cosine.arccos() / math.pi).sum())

    counts = dict.fromkeys(running.sites.layers, 0)
    hooks = watching_layers(running.sites, seen)
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad(), hooked(hooks):
        for batch in batches:
            picks.update({stack: _picked(running, stack, mask) for stack, mask in batch.masks.items()})
            waiting.clear()
            running.hidden(batch)
            for stack, pick in picks.items():
                counts[stack] += int(pick.sum())
    return _of_layers({key: total / counts[key[0]] for key, total in totals.items()})


def _picked(running: Running, stack: str, mask: Any) -> Any:
    """Tokens to compare (lines, width) bool: padding is on the right, so the last token is the last True."""
    if stack != "decoder" and running.reader.task != "causal":
        return mask
    return mask & (mask.long().cumsum(-1) == mask.long().sum(-1, keepdim=True))


def _of_layers(scores: Mapping[tuple[str, int], float]) -> Values:
    values: Values = {}
    for (stack, layer), score in sorted(scores.items()):
        values.setdefault(stack, {})[layer] = np.array([score])
    return values


def greedy_losses(
    running: Running, by_seed: Sequence[Sequence[Batch]], *, count: int | None = None, report: Report = silent
) -> list[Values]:
    """Remove one layer after another, each time the one whose absence raises the measured loss least.

    by_seed  batches of each seed; the mean over seeds decides
    count    layers to remove in all; every layer unless given, and those not reached score infinity
    Returns  for each seed, the loss over that of the whole model once a layer and those before it are gone; lifted where
             needed, so that a layer never scores below one that was removed before it
             each stack -> layer -> (1,) float64, nats per token
    """
    sites = running.sites
    left = [(stack, layer) for stack, layers in sites.layers.items() for layer in sorted(layers)]
    steps = len(left) if count is None else min(count, len(left))
    work = sum(len(left) - step for step in range(steps)) + 1
    done = 0
    values: list[Values] = [
        {stack: {layer: np.array([np.inf]) for layer in layers} for stack, layers in sites.layers.items()}
        for _ in by_seed
    ]
    with one_layer_at_a_time(running.model, sites, running.weights):
        references = [running.references(batches) for batches in by_seed]

        def measure(dropped: Sequence[tuple[str, int]]) -> np.ndarray:
            nonlocal done
            report(f"removing layers, {done} of {work} measured", 0, 0)
            done += 1
            gone: dict[str, list[int]] = {}
            for stack, layer in dropped:
                gone.setdefault(stack, []).append(layer)
            with hooked(skipping_layers(sites, gone)):
                pairs = zip(by_seed, references, strict=True)
                return np.array([running.mean_loss(batches, reference) for batches, reference in pairs])

        whole, removed, floor = measure(()), list[tuple[str, int]](), -np.inf
        for _ in range(steps):
            measured = {place: measure([*removed, place]) - whole for place in left}
            least = min(measured, key=lambda place: float(measured[place].mean()))
            removed.append(least)
            left.remove(least)
            lifted = max(float(measured[least].mean()), float(np.nextafter(floor, np.inf)))
            for seed, value in enumerate(measured[least] + (lifted - measured[least].mean())):
                values[seed][least[0]][least[1]] = np.array([value])
            floor = lifted
    return values


def mean_activation(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """Mean absolute value of what each neuron gives to the second matrix.

    Returns  stack -> layer -> (neurons,) float64
    """
    return _over_neurons(running, batches, running.sites.neurons, inputs=True, measure=lambda states: states.abs())


def activation_probability(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """Share of tokens at which each neuron's non-linearity gives more than zero.

    Read before the non-linearity: ReLU, SiLU and GELU have the sign of their argument.
    Returns  stack -> layer -> (neurons,) float64, 0 to 1
    """
    return _over_neurons(running, batches, running.sites.gates, inputs=False, measure=lambda states: states > 0)


def _over_neurons(
    running: Running,
    batches: Sequence[Batch],
    sites: Mapping[str, Mapping[int, Any]],
    *,
    inputs: bool,
    measure: Callable[[Any], Any],
) -> Values:
    """Mean of a measure of each neuron over real tokens, read from the inputs or the outputs of modules."""
    import torch

    totals: Values = {}
    batch = batches[0]

    def hook(stack: str, layer: int) -> Callable[..., None]:
        width = running.anatomy.neurons[stack][layer]

        def after(module: Any, args: Any, output: Any) -> None:
            # Some families pass (tokens, width) here, others (lines, width of text, width).
            states = (args[0] if inputs else output).detach().flatten(0, -2)[:, :width]
            summed = measure(states[batch.masks[stack].flatten()]).double().sum(0).numpy()
            known = totals.setdefault(stack, {})
            known[layer] = known[layer] + summed if layer in known else summed

        return after

    hooks = [
        module.register_forward_hook(hook(stack, layer))
        for stack, layers in sites.items()
        for layer, module in layers.items()
    ]
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad(), hooked(hooks):
        for batch in batches:
            running.hidden(batch)
    tokens = {stack: sum(int(one.masks[stack].sum()) for one in batches) for stack in totals}
    # Layers that share one set of weights run several times for a token.
    repeats = _repeats(running)
    return {
        stack: {layer: total / (tokens[stack] * repeats) for layer, total in sorted(layers.items())}
        for stack, layers in totals.items()
    }


def _repeats(running: Running) -> int:
    if running.anatomy.body.stacks.get("layers") is None or running.anatomy.fields("layers").layers:
        return 1
    return int(running.model.config.num_hidden_layers) // int(running.model.config.num_hidden_groups)
