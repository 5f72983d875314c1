"""Mean hidden states by language, and their differences (DiffMean).

    v_l = mean over tokens of the target's text of h_l  -  mean over the other languages of their means over tokens

with h_l what block l returns, and the start token, which is the same in every text, left out.
Source: difference in means, as in CLaS-Bench, arXiv 2601.08331.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.scoring.batches import Batch
from langslice.scoring.mapped_model import one_layer_at_a_time
from langslice.scoring.model_runs import Running, hooked, watching_layers

Means = npt.NDArray[np.float64]
STACK = "layers"


def token_means(running: Running, batches: Sequence[Batch]) -> Means:
    """Mean of what each block returns, over tokens.

    batches  of a causal model; each line begins with the start token
    Returns  (layers, hidden) float64
    """
    import torch

    sums: dict[int, npt.NDArray[np.float64]] = {}
    batch = batches[0]

    def seen(_: str, layer: int, __: Any, after: Any) -> None:
        states = after.float()[_text_mask(batch)].double().sum(0).numpy()  # (hidden,)
        sums[layer] = sums[layer] + states if layer in sums else states

    hooks = watching_layers(running.sites, seen)
    with one_layer_at_a_time(running.model, running.sites, running.weights), torch.no_grad(), hooked(hooks):
        for batch in batches:
            running.hidden(batch)
    count = sum(int(_text_mask(one).sum()) for one in batches)
    return np.stack([sums[layer] for layer in sorted(sums)]) / count


def _text_mask(batch: Batch) -> Any:
    """Tokens of the text (lines, width) bool."""
    mask = batch.masks[STACK].clone()
    mask[:, 0] = False
    return mask


def mean_differences(running: Running, batches: Mapping[str, Sequence[Batch]], target: str) -> Means:
    """The target's mean hidden states minus those of the other languages, each of which counts alike.

    batches  language -> lines as the model reads them
    Returns  (layers, hidden) float64
    Example  token means [3, 1] of ko, [1, 1] of en and [2, 0] of fr: [3, 1] - [1.5, 0.5] = [1.5, 0.5] for ko
    """
    means = {language: token_means(running, given) for language, given in batches.items()}
    others = [mean for language, mean in means.items() if language != target]
    found: Means = means[target] - np.mean(others, axis=0)
    return found
