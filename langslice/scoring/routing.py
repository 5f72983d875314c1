"""What the routers of experts do while an unmodified model runs: whom they send tokens to, and how some experts are closed to them.

No class is known by name. The rows say which tensors run along the experts; inside a layer torch's own functions are watched. An
expert is closed by a logit of minus infinity where the router's matrix is multiplied, and by as much in a bias that is added to
scores afterwards, so that neither softmax nor sigmoid nor the choice of the highest sees it: what is left for the others is what a
router without its row would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langslice.errors import PlanError, ScoreError
from langslice.model.anatomy import Anatomy, find_place
from langslice.model.axes import describe_tensor, find_vocabulary_size
from langslice.model.body import is_routed
from langslice.model.families import family_of
from langslice.scoring.batches import Batch
from langslice.scoring.mapped_model import one_layer_at_a_time
from langslice.scoring.model_runs import Running, hooked
from langslice.scoring.sites import Sites
from langslice.scoring.table import Values

_PRODUCTS = frozenset({"linear", "matmul", "__matmul__", "mm", "einsum"})
Place = tuple[str, int]
"""Stack and layer."""


@dataclass(frozen=True)
class Router:
    """Tensors of one layer by which tokens are sent to experts.

    weights  matrices (experts, hidden); with (experts,) biases that are added to scores; either may have more rows behind
    experts  modules that hold all experts of the layer in tensors of their own
    count    number of experts
    """

    weights: tuple[Any, ...]
    biases: tuple[Any, ...]
    experts: tuple[Any, ...]
    count: int


def find_routers(model: Any, anatomy: Anatomy) -> dict[Place, Router]:
    """The routers of an unmodified model, by the axes of its tensors."""
    family = family_of(model.config.to_dict())
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    rows = frozenset({find_vocabulary_size(family, {name: tuple(one.shape) for name, one in tensors.items()})})
    found: dict[Place, tuple[list[Any], list[Any], list[Any]]] = {}
    for name, tensor in tensors.items():
        place = find_place(name, anatomy.body)
        count = 0 if place is None else anatomy.experts.get(place.stack, {}).get(place.layer, 0)
        if place is None or not count:
            continue
        axes = describe_tensor(family, name, tuple(tensor.shape), rows).axes or ()
        if not {"experts", "experts_and_more"} & set(axes):
            continue
        weights, biases, modules = found.setdefault((place.stack, place.layer), ([], [], []))
        if is_routed(place.rest, axes):
            module = model.get_submodule(name.rpartition(".")[0])
            modules += [] if any(module is one for one in modules) else [module]
        elif tensor.numel() == max(tensor.shape):
            biases += [tensor] if "bias" in name.rpartition(".")[2] else []
        else:
            weights.append(tensor)
    return {
        place: Router(tuple(weights), tuple(biases), tuple(modules), anatomy.experts[place[0]][place[1]])
        for place, (weights, biases, modules) in found.items()
    }


def closing(
    model: Any, sites: Sites, anatomy: Anatomy, experts: Mapping[str, Mapping[int, Sequence[int]]]
) -> list[Any]:
    """Hooks that close experts to their routers.

    experts  stack -> layer -> experts
    Raises   PlanError where no router is found; and in a run, where its product is not seen
    """
    if not any(experts.values()):
        return []
    routers = find_routers(model, anatomy)
    hooks: list[Any] = []
    for stack, layers in experts.items():
        for layer, gone in layers.items():
            router = routers.get((stack, layer))
            if router is None or not router.weights:
                raise PlanError(f"no matrix of {type(model).__name__} is the router of {stack} layer {layer}")
            hooks += watched(sites.layers[stack][layer], _closed(router, gone, f"{stack} layer {layer}"))
    return hooks


def _closed(router: Router, gone: Sequence[int], where: str) -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    closed = torch.tensor(list(gone))

    class Closed(TorchFunctionMode):
        seen = False

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            args = tuple(self._biased(one) for one in args)
            kwargs = {name: self._biased(one) for name, one in (kwargs or {}).items()}
            result = function(*args, **kwargs)
            if getattr(function, "__name__", "") in _PRODUCTS and self._routes(result, (*args, *kwargs.values())):
                self.seen = True
                return result.index_fill(-1, closed, float("-inf"))
            return result

        def _biased(self, one: Any) -> Any:
            same = isinstance(one, torch.Tensor) and any(_is_view(one, bias) for bias in router.biases)
            if not same:
                return one
            dim = next(dim for dim, size in enumerate(one.shape) if size == one.numel())
            return one.detach().index_fill(dim, closed, float("-inf"))

        def _routes(self, result: Any, given: Sequence[Any]) -> bool:
            return isinstance(result, torch.Tensor) and any(
                isinstance(one, torch.Tensor) and _is_view(one, weight) and result.shape[-1] in weight.shape
                for one in given
                for weight in router.weights
            )

        def finish(self) -> None:
            if not self.seen:
                raise PlanError(
                    f"the router of {where} does not multiply its matrix in a way that is known, so its experts cannot be closed, "
                    "and a slice without them cannot be compared with its source",
                    hint="keep all experts of this model",
                )

    return Closed()


def _is_view(one: Any, tensor: Any) -> bool:
    """Whether a tensor is another one, in whatever shape; where weights are lent for a layer's run, it is what is lent."""
    return bool(one.data_ptr() == tensor.data_ptr() and one.numel() == tensor.numel())


def watched(module: Any, mode: Any) -> list[Any]:
    """Hooks by which a mode of torch's functions holds while a module runs; its `finish` is called after each run."""

    def enter(*_: Any) -> None:
        mode.__enter__()

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)

    def finish(*_: Any) -> None:
        mode.finish()

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
        module.register_forward_hook(finish),
    ]


# ---- which experts tokens are sent to ------------------------------------------------------------------------------


def routed_share(running: Running, batches: Sequence[Batch], seed: int) -> Values:
    """Share of tokens that each router sends to each expert.

    Returns  stack -> layer -> (experts,) float64; a layer's values add up to the experts that a token runs through
    Raises   ScoreError where it cannot be seen whom a router chooses
    """
    import torch

    totals: Values = {}
    tokens: dict[str, int] = {}
    batch = batches[0]

    def seen(place: Place, chosen: Any) -> None:
        stack, layer = place
        mask = batch.masks[stack].flatten()
        count = running.anatomy.experts[stack][layer]
        if chosen is None or len(chosen) != len(mask):
            raise ScoreError(
                f"whom the router of {stack} layer {layer} sends tokens to cannot be seen in this class",
                hint="name experts yourself: --drop-experts",
            )
        chosen = chosen[mask].flatten()
        summed = torch.bincount(chosen[chosen < count], minlength=count).double().numpy()
        known = totals.setdefault(stack, {})
        known[layer] = known.get(layer, np.zeros(count)) + summed

    hooks = _observing(running, seen)
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad(), hooked(hooks):
        for batch in batches:
            for stack, mask in batch.masks.items():
                tokens[stack] = tokens.get(stack, 0) + int(mask.sum())
            running.hidden(batch)
    return {
        stack: {layer: total / tokens[stack] for layer, total in sorted(layers.items())}
        for stack, layers in totals.items()
    }


def _observing(running: Running, seen: Callable[[Place, Any], None]) -> list[Any]:
    hooks: list[Any] = []
    for place, router in find_routers(running.model, running.anatomy).items():
        mode = _observed(router, lambda chosen, place=place: seen(place, chosen))  # type: ignore[misc]
        hooks += [module.register_forward_pre_hook(mode.given, with_kwargs=True) for module in router.experts]
        hooks += watched(running.sites.layers[place[0]][place[1]], mode)
    return hooks


def _observed(router: Router, seen: Callable[[Any], None]) -> Any:
    """What sees the numbers of experts that are given to the module of all of them; without one, the last choice of the highest."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Observed(TorchFunctionMode):
        chosen: Any = None
        highest: Any = None

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if getattr(function, "__name__", "") == "topk" and args[0].shape[-1] == router.count and args[0].ndim == 2:
                self.highest = result[1]
            return result

        def given(self, module: Any, args: Any, kwargs: Any) -> None:
            for one in (*args, *kwargs.values()):
                if isinstance(one, torch.Tensor) and one.ndim == 2 and one.dtype in (torch.int64, torch.int32):
                    self.chosen = one

        def finish(self) -> None:
            found = self.highest if self.chosen is None else self.chosen
            self.chosen = self.highest = None
            seen(found)

    return Observed()
