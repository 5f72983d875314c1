"""Steer a model of transformers that is in memory, for as long as a block of code runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langslice.errors import CheckpointError
from langslice.steering.adapter import Steering, load_steering


@contextmanager
def apply_steering(model: Any, steering: Steering | str | Path, *, strength: float | None = None) -> Iterator[None]:
    """Change a model's hidden states while within; nothing of it is changed afterwards.

    model     a causal model as transformers loads it, of any float type, on any device; a slice of its vocabulary is one, too
    steering  a folder that `langslice features --steer` wrote, or what `load_steering` gives
    strength  in place of the adapter's own
    Raises    CheckpointError for a damaged adapter, or a model that it is not of
    Example   with apply_steering(model, "to-korean"): model.generate(**inputs)
    """
    given = steering if isinstance(steering, Steering) else load_steering(steering)
    factor = given.strength if strength is None else strength
    modules = _modules(model, given)
    handles = []
    try:
        for layer, module in modules.items():
            if given.method == "diffmean":
                handles.append(module.register_forward_hook(_adding(factor * _tensor(given, layer))))
            else:
                gains = 1 + (factor - 1) * _tensor(given, layer)
                handles.append(module.register_forward_pre_hook(_multiplying(gains)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor(steering: Steering, layer: int) -> Any:
    import torch

    return torch.tensor(steering.vectors[layer])


def _adding(vector: Any) -> Callable[..., Any]:
    def after(module: Any, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        states = states + vector.to(states.device, states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return after


def _multiplying(gains: Any) -> Callable[..., Any]:
    return lambda module, args: (args[0] * gains.to(args[0].device, args[0].dtype), *args[1:])


def _modules(model: Any, steering: Steering) -> dict[int, Any]:
    """Layer -> the module to hook. Raises CheckpointError for a model that has none of them, or others."""
    config = model.config.get_text_config()
    whose = f"the adapter is of `{steering.model_type}` with {steering.layers} layers"
    if config.model_type != steering.model_type or config.num_hidden_layers != steering.layers:
        found = f"`{config.model_type}` with {config.num_hidden_layers} layers"
        raise CheckpointError(f"{whose}, the model is {found}", "make an adapter of this model")
    found_modules = {}
    for layer, name in steering.modules.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise CheckpointError(
                f"{whose}, and the model has no module {name}", "load it as transformers' causal class"
            ) from None
        width = steering.vectors[layer].size
        sizes = {config.hidden_size} if steering.method == "diffmean" else set(module.weight.shape)
        if width not in sizes:
            raise CheckpointError(
                f"layers.{layer} of the adapter has {width} entries, {name} has {min(sizes)}", "make one of this model"
            )
        found_modules[layer] = module
    return found_modules
