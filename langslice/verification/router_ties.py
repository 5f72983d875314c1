"""Choices between experts that float rounding decides: where the source's scores leave one open, the slice takes the source's.

A router without some of its rows, or behind layers that sum in another order, computes scores that differ by rounding. Where two
experts' scores lie no further apart than that, source and slice may choose differently, and all that follows differs though
neither is wrong. So the run of the source notes choices that such a difference could change, and the run of the slice makes them
as the source did, but only where its own scores leave them open, too. Choices with a margin are never touched: a slice that is
wrong by more than rounding makes them on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from langslice.model.anatomy import Anatomy
from langslice.scoring.routing import Place, find_routers, watched
from langslice.scoring.sites import find_sites
from langslice.structure.kept import Kept

# Of the largest score of a token: what outputs may differ by.
_ROUNDING = 1e-5

Noted = dict[int, tuple[int, ...]]
"""Token -> the experts that were chosen for it, by their numbers in the source."""


class RouterTies:
    """What the source chose where its scores lie within rounding, and how often the slice was made to choose the same.

    noted      by layer of the source, one entry for each choice that it made
    followed   choices of the slice that were changed
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.noted: dict[Place, list[Noted]] = {}
        self.followed = 0

    def noting(self, model: Any, anatomy: Anatomy) -> None:
        """Note the choices of a source, as it runs from now on."""
        if not any(anatomy.experts.values()):
            return
        layers = find_sites(model, anatomy).layers
        for (stack, layer), router in find_routers(model, anatomy).items():
            note = partial(_note, self.noted.setdefault((stack, layer), []))
            watched(layers[stack][layer], _choosing(router.count, note))

    def following(self, model: Any, anatomy: Anatomy) -> None:
        """Let a slice choose what the source did in the same runs, where its own scores leave it open.

        anatomy  of the source
        """
        layers = find_sites(model, anatomy).layers
        for (stack, old), calls in self.noted.items():
            if not self._kept.keeps_layer(stack, old):
                continue
            stay = self._kept.experts.get(stack, {}).get(old, tuple(range(anatomy.experts[stack][old])))
            new_of = {expert: new for new, expert in enumerate(stay)}
            waiting = iter(calls)

            def follow(scores: Any, chosen: Any, waiting: Any = waiting, new_of: Any = new_of) -> None:
                for token, experts in next(waiting, {}).items():
                    if token < len(scores) and all(expert in new_of for expert in experts):
                        self.followed += _take(scores[token], chosen[token], [new_of[expert] for expert in experts])

            watched(layers[stack][self._kept.new_layer(stack, old)], _choosing(len(stay), follow))


def _choosing(count: int, seen: Callable[[Any, Any], None]) -> Any:
    """What shows each choice of the highest among experts: scores (tokens, experts), and numbers (tokens, chosen) to change."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Choosing(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if getattr(function, "__name__", "") != "topk" or not args or args[0].shape[-1:] != (count,):
                return result
            scores, chosen = args[0].reshape(-1, count), result[1].clone()
            if chosen.shape[:-1] == args[0].shape[:-1]:
                seen(scores, chosen.view(-1, chosen.shape[-1]))
            if torch.equal(chosen, result[1]):
                return result
            return torch.return_types.topk((args[0].gather(-1, chosen), chosen))

        def finish(self) -> None:
            """Nothing need have been chosen."""

    return Choosing()


def _note(calls: list[Noted], scores: Any, chosen: Any) -> None:
    """Note whom a choice sends tokens to whose last expert is no better than the next by more than rounding."""
    number = chosen.shape[-1]
    noted: Noted = {}
    if number < scores.shape[-1]:
        best = scores.topk(number + 1).values
        open_ = best[:, -2] - best[:, -1] <= _ROUNDING * _largest(scores)
        noted = {token: tuple(chosen[token].tolist()) for token in open_.nonzero().flatten().tolist()}
    calls.append(noted)


def _take(scores: Any, chosen: Any, wanted: list[int]) -> bool:
    """Choose other experts of a token, in place, if its own scores are as high for them, within rounding."""
    import torch

    if set(chosen.tolist()) == set(wanted) or len(wanted) != len(chosen):
        return False
    there = scores[torch.tensor(wanted)]
    if not bool(scores[chosen].min() - there.min() <= 2 * _ROUNDING * _largest(scores)):
        return False
    chosen.copy_(torch.tensor(wanted)[there.argsort(descending=True)])
    return True


def _largest(scores: Any) -> Any:
    """The largest finite score of each token, without its sign."""
    return scores.abs().masked_fill(~scores.isfinite(), 0).amax(dim=-1)
