"""Which linear layers are pruned, and how much of each: patterns, and the share that an allocation gives.

Source of "outliers": OWL, Yin et al. 2024, arXiv 2310.05175, with M = 5 and lambda = 0.08. "languages" spreads its correlations
(language_statistics.py) over the same width.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from langslice.demonstrations.tokens import Prompt
from langslice.errors import CheckpointError, PlanError
from langslice.files.safetensors_header import TensorEntry
from langslice.model.axes import Family, describe_tensor
from langslice.model.families import family_of
from langslice.progress import Report
from langslice.sparsity.block_pass import walk
from langslice.sparsity.blocks import Block, Linear
from langslice.sparsity.language_statistics import correlation_by_block
from langslice.sparsity.request import LANGUAGES, SparsityRequest, allocation_shares
from langslice.sparsity.scores import input_weights, weight_scores
from langslice.sparsity.skeleton import Skeleton

OUTLIER_FACTOR = 5.0
SPREAD = 0.08
ROUTER = "router"


def choose_linears(skeleton: Skeleton, patterns: Sequence[str]) -> Callable[[Block], tuple[Linear, ...]]:
    """Say for each block which of its linear layers are pruned.

    patterns  matched against whole module names; a leading "!" takes away; without positive ones, all are chosen
    Raises    PlanError for a pattern without a match, and when nothing is left; CheckpointError for experts that are
              chosen and stored in a form that is not read
    """
    names = [linear.name for block in skeleton.blocks for linear in block.linears]
    unread = dict(skeleton.unread_experts())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in (*names, *unread)):
            raise PlanError(f"no linear layer matches {pattern!r}", hint=_likely(pattern.removeprefix("!"), names))
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    def is_asked_for(name: str) -> bool:
        return any(fnmatchcase(name, one) for one in wanted) and not any(fnmatchcase(name, one) for one in unwanted)

    _refuse_unread({name: entry for name, entry in unread.items() if is_asked_for(name)})
    family = family_of(skeleton.checkpoint.config)
    chosen = frozenset(
        linear.name
        for block in skeleton.blocks
        for linear in block.linears
        if is_asked_for(linear.name) and (linear.first is not None or _part(family, linear.entry) != ROUTER)
    )
    if not chosen:
        raise PlanError("the patterns leave no linear layer to prune", hint="check --linears")
    return lambda block: tuple(linear for linear in block.linears if linear.name in chosen)


def _part(family: Family, entry: TensorEntry) -> str:
    return describe_tensor(family, entry.name, entry.shape, frozenset()).part


def _refuse_unread(unread: Mapping[str, TensorEntry]) -> None:
    if not unread:
        return
    entry = next(iter(unread.values()))
    leaves = dict.fromkeys(name.removesuffix(".weight").rpartition(".")[2] for name in unread)
    parts = dict.fromkeys(f'--linears "!*.{name.removesuffix(".weight").split(".")[-2]}.*"' for name in unread)
    raise CheckpointError(
        f"experts are stored in one tensor, and which of its dimensions they read is not known\n"
        f"  {entry.name} {entry.shape}, one of {', '.join(leaves)}",
        f"leave them as they are with {' '.join(parts)}",
    )


def uniform_shares(
    skeleton: Skeleton, chosen: Callable[[Block], tuple[Linear, ...]], request: SparsityRequest
) -> dict[str, float]:
    """Share of each chosen layer: that of the request, or of the last pattern of the allocation that matches.

    Raises  PlanError for a pattern without a match
    """
    linears = [linear for block in skeleton.blocks for linear in chosen(block)]
    shares = {linear.name: request.share() for linear in linears}
    for pattern, share in allocation_shares(request.allocation).items():
        matching = [name for name in shares if fnmatchcase(name, pattern)]
        if not matching:
            raise PlanError(
                f"no pruned layer matches {pattern!r} of the allocation", hint=_likely(pattern, list(shares))
            )
        shares.update(dict.fromkeys(matching, share))
    return shares


def outlier_shares(
    skeleton: Skeleton,
    chosen: Callable[[Block], tuple[Linear, ...]],
    prompts: Sequence[Prompt],
    share: float,
    *,
    offload: Path | None,
    compute: str,
    report: Report,
) -> dict[str, float]:
    """Share of each chosen layer, lower for blocks with more outlying scores; blocks are equal in the mean.

    share    mean over the blocks; each lies within 0.08 of it
    Raises   PlanError when a share would leave 0 to 1
    """
    ratios: dict[str, float] = {}
    for visit in walk(skeleton, prompts, watched=chosen, offload=offload, compute=compute, report=report):
        if visit.statistics is not None:
            ratios[visit.block.name] = _outlier_ratio(
                [
                    weight_scores(linear.rows().numpy(), input_weights(visit.statistics.mean_squares("keep", linear)))
                    for linear in chosen(visit.block)
                    if visit.statistics.reached("keep", linear)
                ]
            )
    blocks = spread_shares(ratios, share)
    return {
        linear.name: blocks[block.name] for block in skeleton.blocks for linear in chosen(block) if block.name in blocks
    }


def language_shares(
    skeleton: Skeleton,
    chosen: Callable[[Block], tuple[Linear, ...]],
    prompts: Sequence[Prompt],
    share: float,
    *,
    offload: Path | None,
    compute: str,
    report: Report,
) -> dict[str, float]:
    """Share of each chosen layer, lower for blocks whose inputs languages use more alike; blocks are equal in the mean.

    prompts  with a condition for each language
    share    mean over the blocks; each lies within 0.08 of it, or 0.16 on one side where the blocks lie unevenly
    Raises   PlanError when a share would leave 0 to 1
    """
    found = correlation_by_block(skeleton, chosen, prompts, offload=offload, compute=compute, report=report)
    blocks = spread_shares(found, share, LANGUAGES)
    return {linear.name: blocks.get(block.name, share) for block in skeleton.blocks for linear in chosen(block)}


def spread_shares(ratios: Mapping[str, float], share: float, allocation: str = "outliers") -> dict[str, float]:
    """Turn outlier ratios of blocks, or what else says that a block should keep more, into shares to remove.

    allocation  named in errors

    Example  spread_shares({"a": 0.0, "b": 0.1}, 0.5) == {"a": 0.58, "b": 0.42}
    """
    values = np.array(list(ratios.values()))
    extent = values.max() - values.min()
    scaled = (values - values.min()) / extent * 2 * SPREAD if extent else np.zeros_like(values)
    found = share - (scaled - scaled.mean())
    if found.min() < 0 or found.max() >= 1:
        raise PlanError(
            f"allocation {allocation!r} at sparsity {share:g} would remove {found.min():.2f} to {found.max():.2f} of a block",
            hint="choose a sparsity further from 0 and 1, or --allocation uniform",
        )
    return dict(zip(ratios, (round(float(value), 9) for value in found), strict=True))


def _outlier_ratio(scores: Sequence[np.ndarray]) -> float:
    """Share of a block's scores that exceed five times their layer's mean."""
    outlying = sum(int((one > OUTLIER_FACTOR * one.mean(dtype=np.float64)).sum()) for one in scores)
    return outlying / sum(one.size for one in scores)


def _likely(pattern: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
    return f"layers are called like {near[0] if near else names[0]}; patterns match whole names: *.mlp.*"
