"""Scores of heads and neurons that need gradients of the loss; the whole model is in memory, in float32.

Heads: Michel et al. 2019, arXiv 1905.10650 (importance); Voita et al. 2019, arXiv 1905.09418 (learned gates); Liu et al.
2025, arXiv 2511.07498 (importance by language). Neurons: Molchanov et al. 2017, arXiv 1611.06440 (first-order Taylor).

A model without a language model head has no loss of its own. Its scores speak of its embedding: the loss of a line is the
part of its embedding along a random direction, so that a gradient says how far a part moves the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from langslice.progress import Report, silent
from langslice.scoring.batches import Batch
from langslice.scoring.model_runs import Running, hooked
from langslice.scoring.table import Values

GATE_STRETCH = (-0.1, 1.1)
GATE_TEMPERATURE = 0.33
_GATE_START = 2.0
_GATE_RATE = 0.1


def head_importance(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """|A . dL/dA| of each head's output A at each token, summed and divided by tokens; L is summed over tokens.

    Returns  attention -> layer -> (heads,) float64
    """
    return _over_tokens(running, batches, seed, running.sites.heads, _by_head(running))


def neuron_taylor(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """|a dL/da| of each neuron's output a at each token, summed and divided by tokens.

    Returns  stack -> layer -> (neurons,) float64
    """
    return _over_tokens(running, batches, seed, running.sites.neurons, lambda place, layer: lambda product: product)


def _by_head(running: Running) -> Callable[[str, int], Callable[[Any], Any]]:
    def reducer(place: str, layer: int) -> Callable[[Any], Any]:
        query = running.anatomy.heads[place][layer].query
        return lambda product: product.unflatten(-1, (query, -1)).sum(-1)

    return reducer


def _over_tokens(
    running: Running,
    batches: Sequence[Batch],
    seed: int,
    sites: Mapping[str, Mapping[int, Any]],
    reducer: Callable[[str, int], Callable[[Any], Any]],
) -> Values:
    """Mean over real tokens of the absolute value of what `reducer` makes of input times gradient."""
    totals: Values = {}
    batch = batches[0]

    def collect(place: str, layer: int, product: Any) -> None:
        mask = batch.masks[place.split(".")[0]].flatten()
        reduced = reducer(place, layer)(product.flatten(0, -2)[mask])
        summed = reduced.abs().double().sum(0).numpy()
        known = totals.setdefault(place, {})
        known[layer] = known[layer] + summed if layer in known else summed

    with _gradients(running, sites, collect):
        for number, batch in enumerate(batches):
            losses, _ = running.line_losses(batch, _directions(running, batch, seed, number))
            losses.sum().backward()
    tokens = {stack: sum(int(one.masks[stack].sum()) for one in batches) for stack in batches[0].masks}
    return {
        place: {layer: total / tokens[place.split(".")[0]] for layer, total in sorted(layers.items())}
        for place, layers in totals.items()
    }


def language_importance(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """Gradient of a mask that is 1 at every head, absolute for each line, mean over lines; L is a line's mean loss.

    Returns  attention -> layer -> (heads,) float64
    """
    totals: Values = {}
    signed: dict[tuple[str, int], Any] = {}

    def collect(place: str, layer: int, product: Any) -> None:
        by_line = _by_head(running)(place, layer)(product).sum(1)  # (lines, heads)
        signed[place, layer] = signed.get((place, layer), 0) + by_line

    lines = 0
    with _gradients(running, running.sites.heads, collect):
        for number, batch in enumerate(batches):
            signed.clear()
            losses, counts = running.line_losses(batch, _directions(running, batch, seed, number))
            (losses if batch.labels is None else losses / counts).sum().backward()
            lines += len(losses)
            for (place, layer), by_line in signed.items():
                known = totals.setdefault(place, {})
                summed = by_line.abs().double().sum(0).numpy()
                known[layer] = known[layer] + summed if layer in known else summed
    return {
        place: {layer: total / lines for layer, total in sorted(layers.items())} for place, layers in totals.items()
    }


def _directions(running: Running, batch: Batch, seed: int, number: int) -> Any:
    """One random direction for each line; None where the loss is that of tokens."""
    import torch

    if batch.labels is not None:
        return None
    generator = torch.Generator().manual_seed(seed * 100_003 + number)
    hidden = running.model.config.get_text_config().hidden_size
    return torch.randn((len(batch.last_mask), hidden), generator=generator)


@contextmanager
def _gradients(
    running: Running, sites: Mapping[str, Mapping[int, Any]], collect: Callable[[str, int, Any], None]
) -> Iterator[None]:
    """While the model runs forward and backward, show input times gradient of every site as `collect(place, layer, product)`."""
    import torch

    zero = torch.zeros(1, requires_grad=True)

    def tap(place: str, layer: int) -> Callable[..., None]:
        def before(module: Any, args: Any) -> None:
            states = args[0]
            states.register_hook(partial(_show, collect, place, layer, states.detach()))

        return before

    def begin(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (args[0] + zero, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + zero}

    # Parameters have no gradient; without one at the first layers nothing after them would.
    hooks = [
        layers[min(layers)].register_forward_pre_hook(begin, with_kwargs=True)
        for layers in running.sites.layers.values()
    ]
    hooks += [
        module.register_forward_pre_hook(tap(place, layer))
        for place, layers in sites.items()
        for layer, module in layers.items()
    ]
    with hooked(hooks), torch.enable_grad():
        yield


def _show(collect: Callable[[str, int, Any], None], place: str, layer: int, states: Any, gradient: Any) -> None:
    collect(place, layer, states * gradient)


def open_probability(log_a: Any) -> Any:
    """P(gate is not 0) of a hard concrete gate with location `log_a` (a tensor of any shape).

    Source   Louizos et al. 2018, arXiv 1712.01312, equation 12
    """
    import torch

    low, high = GATE_STRETCH
    return torch.sigmoid(log_a - GATE_TEMPERATURE * float(np.log(-low / high)))


def sample_gates(log_a: Any, uniform: Any) -> Any:
    """Draw hard concrete gates in [0, 1] from uniform numbers of the same shape.

    Example   log_a 0 and u 0.5 give sigmoid(0) stretched to [-0.1, 1.1], which is 0.5
    """
    import torch

    low, high = GATE_STRETCH
    concrete = torch.sigmoid((uniform.log() - (1 - uniform).log() + log_a) / GATE_TEMPERATURE)
    return (concrete * (high - low) + low).clamp(0, 1)


def head_gates(
    running: Running,
    batches: Sequence[Batch],
    seed: int,
    *,
    steps: int,
    penalty: float,
    report: Report = silent,
) -> Values:
    """Train one gate a head, the model frozen, and give the probability that it is open.

    steps    of Adam, one batch each
    penalty  lambda: nats per token that one open gate costs
    Returns  attention -> layer -> (heads,) float64, 0 to 1
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    places = [(place, layer) for place, layers in running.sites.heads.items() for layer in sorted(layers)]
    heads = {key: running.anatomy.heads[key[0]][key[1]] for key in places}
    log_a = {key: torch.full((heads[key].query,), _GATE_START, requires_grad=True) for key in places}
    drawn: dict[tuple[str, int], Any] = {}

    def gate(key: tuple[str, int]) -> Callable[..., Any]:
        return lambda module, args: (args[0] * drawn[key].repeat_interleave(heads[key].size), *args[1:])

    references = running.references(batches)  # of the whole model: before any gate is in place
    hooks = [
        running.sites.heads[place][layer].register_forward_pre_hook(gate((place, layer))) for place, layer in places
    ]
    optimiser = torch.optim.Adam(log_a.values(), lr=_GATE_RATE)
    order = torch.Generator().manual_seed(seed)
    with hooked(hooks), torch.enable_grad():
        for step in range(steps):
            report(f"training gates, seed {seed}, {step} of {steps} steps", 0, 0)
            at = int(torch.randint(len(batches), (1,), generator=order))
            for key, location in log_a.items():
                uniform = torch.rand(location.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
                drawn[key] = sample_gates(location, uniform)
            if references is None:
                losses, counts = running.line_losses(batches[at])
                loss = losses.sum() / counts.sum()
            else:
                loss = (1 - (running.embed(batches[at]) * references[at]).sum(-1)).mean()
            loss = loss + penalty * sum(open_probability(location).sum() for location in log_a.values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    values: Values = {}
    for (place, layer), location in log_a.items():
        values.setdefault(place, {})[layer] = open_probability(location.detach().double()).numpy()
    return values
