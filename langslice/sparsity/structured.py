"""Scores of whole neurons and heads, from the same statistic that single weights are scored with.

A neuron, or a head, reaches the residual stream through columns of one output projection only. Its score is the sum of the
Wanda scores of these columns: how much of what is written comes from it. Removing them is another room's work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from langslice.demonstrations.demonstration import Demonstration
from langslice.demonstrations.tokens import load_prompts
from langslice.errors import CheckpointError, PlanError
from langslice.model.axes import describe_tensor
from langslice.model.families import family_of
from langslice.progress import Report, silent
from langslice.sparsity.block_pass import walk
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.scores import input_weights, weight_scores
from langslice.sparsity.skeleton import Skeleton

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StructuredScores:
    """Scores by output projection, named as its weight is on disk; higher matters more.

    neurons  (feed-forward width,) of each feed-forward output projection
    heads    (query heads,) of each attention output projection, cross-attention included
    """

    neurons: Mapping[str, Vector]
    heads: Mapping[str, Vector]


def structured_scores(
    folder: Path,
    keep_demos: Sequence[str | Path | Demonstration],
    avoid_demos: Sequence[str | Path | Demonstration] = (),
    *,
    epsilon: float = 1e-6,
    max_tokens: int = 512,
    offload: Path | None = None,
    report: Report = silent,
) -> StructuredScores:
    """Score every neuron and head of a model on calibration data; the model is read block by block and not changed.

    folder    of a checkpoint
    keep_demos, avoid_demos, epsilon, max_tokens  see SparsityRequest
    offload   folder for activations, instead of memory
    Raises    PlanError without calibration data; CheckpointError when no projection is found
    """
    if not keep_demos:
        raise PlanError(
            "structured scores need demonstrations, and none were given", hint="see `langslice demonstrations`"
        )
    skeleton = Skeleton(folder)
    conditions = {"keep": keep_demos, **({"avoid": avoid_demos} if avoid_demos else {})}
    prompts = load_prompts(skeleton.checkpoint.model_folder, conditions, max_tokens=max_tokens)
    neurons: dict[str, Vector] = {}
    heads: dict[str, Vector] = {}
    for visit in walk(
        skeleton, prompts, watched=lambda block: _projections(skeleton, block), offload=offload, report=report
    ):
        if visit.statistics is None:
            continue
        for linear in _projections(skeleton, visit.block):
            avoid = visit.statistics.mean_squares("avoid", linear) if avoid_demos else None
            factors = input_weights(visit.statistics.mean_squares("keep", linear), avoid, epsilon)
            columns = weight_scores(np.ascontiguousarray(linear.rows().numpy()), factors).sum(axis=0, dtype=np.float64)
            if _reads(skeleton, linear) == "neurons":
                neurons[linear.entry.name] = columns
            else:
                count = _head_count(skeleton, visit.block, linear)
                heads[linear.entry.name] = columns.reshape(count, -1).sum(axis=1)
    if not neurons and not heads:
        raise CheckpointError("no output projection of neurons or heads was found", "see langslice/model/families.py")
    return StructuredScores(neurons, heads)


def _projections(skeleton: Skeleton, block: Block) -> tuple[Linear, ...]:
    return tuple(linear for linear in block.linears if _reads(skeleton, linear) in ("neurons", "heads"))


def _reads(skeleton: Skeleton, linear: Linear) -> str:
    """Axis that a layer writing to the residual stream reads; empty for any other layer."""
    family = family_of(skeleton.checkpoint.config)
    axes = describe_tensor(family, linear.entry.name, linear.entry.shape, frozenset()).axes or ("", "")
    source, target = axes if linear.transposed else (axes[1], axes[0])
    return source if target == "hidden" else ""


def _head_count(skeleton: Skeleton, block: Block, linear: Linear) -> int:
    config = skeleton.model.config
    text = getattr(config, "text_config", None) or config
    of_decoder = "decoder" in block.stack and hasattr(text, "decoder_attention_heads")
    count = int(text.decoder_attention_heads if of_decoder else text.num_attention_heads)
    if linear.inputs % count:
        raise CheckpointError(f"{linear.name} reads {linear.inputs} values, which {count} heads cannot share equally")
    return count
