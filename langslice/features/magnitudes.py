"""How large each dimension of the hidden states is, layer by layer, while a model reads demonstrations.

    m_l[d] = mean over demonstrations of sqrt(sum over tokens t of h_l[t, d]^2)

Blocks are read one at a time (langslice.sparsity.block_pass), so that any model fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.demonstrations.demonstration import Demonstration
from langslice.demonstrations.tokens import load_prompts
from langslice.errors import CorpusError
from langslice.progress import Report, silent


@dataclass(frozen=True)
class Magnitudes:
    """Magnitudes of hidden dimensions.

    conditions  names of the sets of demonstrations
    layers      "embeddings", then the blocks in the order in which they run
    values      (conditions, layers, hidden) float64
    prompts     demonstrations in each condition
    """

    conditions: tuple[str, ...]
    layers: tuple[str, ...]
    values: npt.NDArray[np.float64]
    prompts: tuple[int, ...]

    def of(self, condition: str) -> npt.NDArray[np.float64]:
        """(layers, hidden) of one condition."""
        found: npt.NDArray[np.float64] = self.values[self.conditions.index(condition)]
        return found


def measure_magnitudes(
    folder: Path,
    conditions: Mapping[str, Sequence[str | Path | Demonstration]],
    *,
    max_tokens: int = 512,
    offload: Path | None = None,
    report: Report = silent,
) -> Magnitudes:
    """Pass sets of demonstrations through a model and measure its hidden states; nothing is changed.

    folder      of a checkpoint
    conditions  name -> jsonl files, or demonstrations
    offload     folder for activations, instead of memory
    Raises      CorpusError, CheckpointError
    """
    from langslice.sparsity.block_pass import walk
    from langslice.sparsity.skeleton import Skeleton

    if not conditions:
        raise CorpusError("no demonstrations were given", "pass --demos FILE")
    skeleton = Skeleton(folder)
    prompts = load_prompts(skeleton.checkpoint.model_folder, conditions, max_tokens=max_tokens)
    names = tuple(conditions)
    counts = [sum(prompt.condition == name for prompt in prompts) for name in names]
    sums: dict[str, npt.NDArray[np.float64]] = {}

    def note(layer: str, number: int, hidden: Any) -> None:
        condition = names.index(prompts[number].condition)
        norms = hidden.reshape(-1, hidden.shape[-1]).double().square().sum(dim=0).sqrt().numpy()
        sums.setdefault(layer, np.zeros((len(names), norms.size)))[condition] += norms

    for _ in walk(skeleton, prompts, offload=offload, on_hidden=note, report=report):
        pass
    values = np.stack(list(sums.values()), axis=1) / np.array(counts, dtype=np.float64)[:, None, None]
    return Magnitudes(names, tuple(sums), values, tuple(counts))
