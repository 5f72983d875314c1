"""Log probabilities of some tokens at some positions, without the logits of all others.

The output head is often half of a small model, and its logits most of the memory of a pass. It is given only the positions
that are scored, and a few of them at a time, so that logits stay in the processor's cache and do not grow with the pass.
That needs a model that returns what its head gives: where it scales or caps the logits after the head (Cohere, Granite,
Gemma 2), they are computed in one piece, and passes are kept as short as that takes.
"""

from __future__ import annotations

from typing import Any

from langslice.evaluation.loaded_model import Loaded

# Positions of one pass: more take memory and save no time.
_POSITIONS = {"cpu": 2048, "cuda": 1 << 14}
# Fewer rows than these make the head, and fewer positions the model, wait for weights more than compute.
_LEAST_ROWS = 64
_LEAST_POSITIONS = 256


def pass_positions(loaded: Loaded) -> int:
    """Most positions of one pass, padding included."""
    if loaded.plain_head:
        return _POSITIONS[device_kind(loaded)]
    return max(_LEAST_POSITIONS, loaded.logits_limit // loaded.vocabulary)


def device_kind(loaded: Loaded) -> str:
    """`cpu`, or `cuda` for every accelerator."""
    return "cpu" if loaded.model.device.type == "cpu" else "cuda"


def try_head(loaded: Loaded, **inputs: Any) -> None:
    """Find out on a small input whether the model returns what its output head gives; done once for a model."""
    import torch

    if loaded.plain_head is not None:
        return
    seen: list[Any] = []
    head = loaded.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, output: seen.append(output.clone())) if head is not None else None
    try:
        with torch.inference_mode():
            logits = loaded.model(**inputs).logits
    finally:
        if hook is not None:
            hook.remove()
    loaded.plain_head = len(seen) == 1 and torch.equal(seen[0].to(logits.dtype), logits)


def log_probabilities(loaded: Loaded, where: Any, of: Any, targets: Any, **inputs: Any) -> tuple[Any, Any]:
    """One pass, and the log probabilities of tokens at some of its positions.

    where    (rows, width or less) bool: positions; each is asked for one token at least
    of       (pairs,) ascending: which of these positions, counted row by row
    targets  (pairs,) ids
    Returns  what the model returns, and (pairs,) float32
    """
    import torch

    width = where.shape[1]
    states: list[Any] = []

    def select(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        states.append(arguments[0][:, :width][where])
        return (states[0][None, :1] if loaded.plain_head else states[0][None], *arguments[1:])

    head = loaded.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(select) if head is not None else None
    try:
        output = loaded.model(**inputs)
    finally:
        if hook is not None:
            hook.remove()
    if not loaded.plain_head:
        # A class that does not call its head as a module gives the logits of every position.
        logits = output.logits[0] if states else output.logits[:, :width][where]
        return output, _picked(logits, of, targets)
    step = max(_LEAST_ROWS, loaded.logits_limit // loaded.vocabulary)
    bounds = torch.searchsorted(of, torch.arange(0, len(states[0]) + step, step, device=of.device)).tolist()
    found = [
        _picked(head(states[0][None, first : first + step])[0], of[start:stop] - first, targets[start:stop])
        for first, start, stop in zip(range(0, len(states[0]), step), bounds[:-1], bounds[1:], strict=True)
    ]
    return output, torch.cat(found)


def _picked(logits: Any, of: Any, targets: Any) -> Any:
    """(positions, vocabulary) logits, (pairs,) positions and ids -> (pairs,) log probabilities in float32."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = logits.float()
    if len(of) == len(logits):
        # One pass over each row while it is in the cache: half the time of gathering and a logsumexp.
        return -cross_entropy(logits, targets, reduction="none")
    first = torch.searchsorted(of, torch.arange(len(logits), device=of.device))
    anchors = targets[first]
    known = -cross_entropy(logits, anchors, reduction="none")
    return known[of] + logits[of, targets] - logits[of, anchors[of]]
