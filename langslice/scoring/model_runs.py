"""Run an unmodified model for scores: its loss line by line, and what can be hooked into a run.

Skipping a layer puts its input in the place of its output; silencing a head or a neuron puts zeros in the place of what
it gives to the matrix after it. Both say what a slice would do, without making it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langslice.model.anatomy import Anatomy
from langslice.model.checkpoint import Checkpoint
from langslice.scoring.batches import IGNORED, Batch, Reader, open_reader
from langslice.scoring.mapped_model import MappedWeights, load_unmodified
from langslice.scoring.sites import Sites, find_sites

Dropped = Mapping[str, Mapping[int, Sequence[int]]]
"""Place -> layer -> heads or neurons."""


@dataclass(frozen=True)
class Running:
    """A model that is ready to run."""

    model: Any
    anatomy: Anatomy
    sites: Sites
    reader: Reader
    weights: MappedWeights

    def hidden(self, batch: Batch) -> Any:
        """Run everything but the head (lines, width, hidden)."""
        return self.model.base_model(**batch.inputs)

    def line_losses(self, batch: Batch, directions: Any = None) -> tuple[Any, Any]:
        """Loss of each line, summed over what it predicts, and how much that is.

        directions  (lines, hidden): for embeddings, the loss is the part of the embedding along them
        Returns     (lines,) losses in nats, and (lines,) counts: predicted tokens, for embeddings all tokens
        """
        import torch

        if batch.labels is None:
            return (self.embed(batch) * directions).sum(-1), batch.last_mask.sum(-1)
        logits = self.model(**batch.inputs).logits.float()  # (lines, width, vocabulary)
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(batch.labels.shape)
        return losses.sum(-1), (batch.labels != IGNORED).sum(-1)

    def embed(self, batch: Batch) -> Any:
        """Mean of the last hidden states over real tokens, scaled to length 1 (lines, hidden)."""
        import torch

        states = self.hidden(batch).last_hidden_state.float()
        weight = batch.last_mask[..., None].to(states.dtype)
        return torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)

    def mean_loss(self, batches: Sequence[Batch], references: Sequence[Any] | None = None) -> float:
        """Loss of a token in nats; for embeddings, 1 - cosine to `references`, what `embed` gave of the whole model."""
        import torch

        total, count = 0.0, 0
        with torch.no_grad():
            for at, batch in enumerate(batches):
                if batch.labels is None:
                    if references is None:
                        continue
                    losses = 1 - (self.embed(batch) * references[at]).sum(-1)
                    counts = torch.ones(len(losses))
                else:
                    losses, counts = self.line_losses(batch)
                total += float(losses.double().sum())
                count += int(counts.sum())
        return total / max(count, 1)

    def references(self, batches: Sequence[Batch]) -> list[Any] | None:
        """Embeddings of the whole model, for `mean_loss`; None where the loss is that of tokens."""
        import torch

        if batches[0].labels is not None:
            return None
        with torch.no_grad():
            return [self.embed(batch) for batch in batches]


def open_running(checkpoint: Checkpoint, anatomy: Anatomy, *, whole: bool, max_tokens: int = 128) -> Running:
    """Load the unmodified model of a checkpoint, ready to run.

    whole       in memory and in float32, for gradients and for many runs; otherwise mapped, see mapped_model.py
    max_tokens  longest line that it will read
    Raises      ScoreError as load_unmodified and open_reader do
    """
    weights = MappedWeights(checkpoint)
    model = load_unmodified(checkpoint, anatomy, weights, whole=whole)
    # A cache of keys and values would only cost memory here.
    model.config.get_text_config().use_cache = False
    model.config.use_cache = False
    reader = open_reader(checkpoint, anatomy, model, max_tokens)
    return Running(model, anatomy, find_sites(model, anatomy), reader, weights)


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Hidden states among a layer's arguments."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def hooked(hooks: Sequence[Any]) -> Iterator[None]:
    """Remove hooks at the end, whatever happens."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def watching_layers(sites: Sites, seen: Callable[[str, int, Any, Any], None]) -> list[Any]:
    """Hooks that show every layer's input and output (lines, width, hidden) as `seen(stack, layer, before, after)`."""

    def hook(stack: str, layer: int) -> Callable[..., None]:
        def after(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            seen(stack, layer, first_tensor(args, kwargs), states)

        return after

    return [
        module.register_forward_hook(hook(stack, layer), with_kwargs=True)
        for stack, layers in sites.layers.items()
        for layer, module in sorted(layers.items())
    ]


def skipping_layers(sites: Sites, dropped: Mapping[str, Sequence[int]]) -> list[Any]:
    """What passes a layer's input on as its output, until it is removed as a hook is.

    dropped   stack -> layers
    """
    return [_Skipped(sites.layers[stack][layer]) for stack, layers in dropped.items() for layer in layers]


class _Skipped:
    """A layer whose input is its output. Only what gives more than states, such as a bias for the layers after it, is computed."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._computed: Callable[..., Any] = module.forward
        self._form: type | None = None
        module.forward = self._pass_on

    def _pass_on(self, *args: Any, **kwargs: Any) -> Any:
        states = first_tensor(args, kwargs)
        if self._form is None:
            output = self._computed(*args, **kwargs)
            if isinstance(output, tuple) and len(output) > 1:
                return (states, *output[1:])
            self._form = tuple if isinstance(output, tuple) else object
        return (states,) if self._form is tuple else states

    def remove(self) -> None:
        """Let the layer compute again."""
        del self._module.forward


def silencing(
    sites: Sites, anatomy: Anatomy, heads: Dropped | None = None, neurons: Dropped | None = None
) -> list[Any]:
    """Hooks that put zeros in the place of what heads and neurons give to the matrix after them."""
    import torch

    hooks = []

    def silence(keep: Any) -> Callable[..., Any]:
        return lambda module, args: (args[0] * keep.to(args[0].device), *args[1:])

    for place, layers in (heads or {}).items():
        for layer, indices in layers.items():
            count = anatomy.heads[place][layer]
            keep = torch.ones(count.query, count.size)
            keep[list(indices)] = 0
            hooks.append(sites.heads[place][layer].register_forward_pre_hook(silence(keep.flatten())))
    for stack, layers in (neurons or {}).items():
        for layer, indices in layers.items():
            keep = torch.ones(anatomy.neurons[stack][layer])
            keep[list(indices)] = 0
            hooks.append(sites.neurons[stack][layer].register_forward_pre_hook(silence(keep)))
    return hooks
