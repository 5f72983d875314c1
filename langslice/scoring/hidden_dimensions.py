"""How much each dimension of the hidden states matters, from a forward pass over text or from the weights alone.

"activation"  at every layer's input, and at the last one's output, the share of the sum of squares over all tokens, each token's
              states divided by their root mean square first, as the norm that reads them does; the largest share over layers
"l2"          from the weights: the share of the sum of squares of the embedding's columns, with which the stream begins; where
              layer norms give the stream (BERT), that of the squares of their weights, the largest share over norms
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import ScoreError
from langslice.model.anatomy import Anatomy
from langslice.model.axes import describe_tensors, find_vocabulary_size
from langslice.model.checkpoint import Checkpoint
from langslice.model.families import family_of
from langslice.progress import Report, silent
from langslice.scoring.options import ScoreSettings
from langslice.structure.hidden_size import residual_of


def hidden_scores(
    checkpoint: Checkpoint, anatomy: Anatomy, method: str, texts: Sequence[str], report: Report = silent
) -> npt.NDArray[np.float64]:
    """Score every dimension of the hidden states.

    method   "activation" or "l2"
    texts    files for "activation", as in `compute`
    Returns  (hidden,) float64, the more important the higher
    Raises   CorpusError, ScoreError
    """
    if method == "l2":
        return _shares_of_weights(checkpoint, anatomy, report)
    sums: dict[tuple[str, int], Any] = {}

    def add(place: tuple[str, int], even: Any) -> None:
        squares = even.square().sum(0)
        sums[place] = sums[place] + squares if place in sums else squares

    _watch(checkpoint, anatomy, texts, add, report)
    found: npt.NDArray[np.float64] = np.stack([(one / one.sum()).numpy() for one in sums.values()]).max(0)
    return _finite(found)


def principal_directions(
    checkpoint: Checkpoint, anatomy: Anatomy, texts: Sequence[str], report: Report = silent
) -> npt.NDArray[np.float64]:
    """Directions in which the hidden states are largest: eigenvectors of their mean products, the largest first.

    texts    files, as in `compute`
    Returns  (hidden, hidden) float64, orthonormal columns
    Raises   CorpusError, ScoreError
    """
    sums: list[Any] = []

    def add(place: tuple[str, int], even: Any) -> None:
        product = even.T @ even
        sums[:] = [sums[0] + product] if sums else [product]

    _watch(checkpoint, anatomy, texts, add, report)
    vectors = np.linalg.eigh(_finite(sums[0].numpy()))[1]
    descending: npt.NDArray[np.float64] = vectors[:, ::-1]
    return descending


def _finite(found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same sums (...), when all are finite."""
    if not np.isfinite(found).all():
        raise ScoreError("a hidden dimension has no finite size: the model overflows on this text")
    return found


def _watch(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    texts: Sequence[str],
    add: Callable[[tuple[str, int], Any], None],
    report: Report,
) -> None:
    """Show the states of all real tokens before every layer and after the last, each divided by its root mean square.

    add    told the stack and place, and float64 states (tokens, hidden)
    """
    import torch

    from langslice.scoring.batches import make_batches
    from langslice.scoring.mapped_model import one_layer_at_a_time
    from langslice.scoring.model_runs import hooked, open_running, watching_layers
    from langslice.scoring.texts import read_score_texts, sample_lines

    settings = ScoreSettings()
    lines, _ = read_score_texts(texts, report=report)
    running = open_running(checkpoint, anatomy, whole=False, max_tokens=settings.max_tokens)
    report("measuring hidden dimensions", 0, 0)
    seed = settings.seeds[0]
    batches = [
        batch
        for given in lines.values()
        for batch in make_batches(running.reader, sample_lines(given, seed, settings.samples), seed, predict=False)
    ]
    batch = batches[0]

    def show(stack: str, place: int, states: Any) -> None:
        real = states[batch.masks[stack]].double()
        add((stack, place), real / real.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-30))

    def seen(stack: str, layer: int, before: Any, after: Any) -> None:
        show(stack, layer, before)
        if layer == anatomy.layers[stack] - 1:
            show(stack, layer + 1, after)

    hooks = watching_layers(running.sites, seen)
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad(), hooked(hooks):
        for batch in batches:
            running.hidden(batch)


def _shares_of_weights(checkpoint: Checkpoint, anatomy: Anatomy, report: Report) -> npt.NDArray[np.float64]:
    from langslice.scoring.magnitude import power_sums

    family = family_of(checkpoint.config)
    described = describe_tensors(family, checkpoint.shapes, find_vocabulary_size(family, checkpoint.shapes))
    by_norms = residual_of(anatomy).norm == "layer"
    wanted = ("hidden",) if by_norms else ("vocab", "hidden")
    names = [name for name, tensor in described.items() if tensor.axes == wanted and _gives_stream(name, tensor.part)]
    shares = []
    for done, name in enumerate(names):
        report(f"reading weights, {done} of {len(names)} tensors", 0, 0)
        sums = power_sums(checkpoint.tensors[name], wanted.index("hidden"), 2)
        shares.append(sums / max(sums.sum(), 1e-30))
    largest: npt.NDArray[np.float64] = np.stack(shares).max(0)
    return largest


def _gives_stream(name: str, part: str) -> bool:
    """Whether a tensor is the weight of a norm, or a table of tokens and no output head."""
    head = any(word in name for word in ("lm_head", "decoder.weight", "embed_out"))
    return name.endswith(".weight") and not head and part in ("norm", "vocabulary")
