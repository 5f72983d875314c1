"""Read candidates with common beginnings as one tree: every common token once, no cache, one pass.

The sequences of a family become the branches of a tree whose nodes are laid out one after another. A node sees its ancestors only,
through a mask of its own, and is at the position that its depth gives. That needs a model that takes positions and masks
as they are given, with attention over everything before (no ALiBi, no window shorter than the text); other models read
through a shared cache (`label_scores.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langslice.evaluation.loaded_model import Loaded
from langslice.evaluation.output_head import device_kind, log_probabilities, pass_positions
from langslice.evaluation.pass_order import CandidateGroup, batch_rows
from langslice.model.families import reading_of

# Attention within a tree grows with the square of its nodes.
MOST_NODES = 512


@dataclass(frozen=True)
class Tree:
    """A family laid out one after another. A node is a token that another one follows; each of these is a branch.

    tokens, depths  (nodes,) ids and positions
    seen            (nodes, nodes) bool: each node sees its ancestors and itself
    of, targets     (branches,) the node that a branch leaves, ascending, and the token that it leads to
    paths           for each candidate its place in the caller's list, and (its length - 1,) branches
    """

    tokens: np.ndarray
    depths: np.ndarray
    seen: np.ndarray
    of: np.ndarray
    targets: np.ndarray
    paths: list[tuple[int, np.ndarray]]


def can_pack(loaded: Loaded, longest: int) -> bool:
    """Does the model read trees of sequences of at most `longest` tokens as it reads them one by one?"""
    config = loaded.model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if (
        not reading_of({"model_type": config.model_type}).reads_trees
        or not any(base.__module__.startswith("transformers.models.") for base in type(loaded.model).__mro__)
        or config._attn_implementation not in ("sdpa", "eager")
        or not kinds <= ({"full_attention", "sliding_attention"} if window else {"full_attention"})
        or (window and longest > window)
        # What rounding hides, the trial below cannot see.
        or str(loaded.model.dtype) not in ("torch.float32", "torch.float64")
    ):
        return False
    if loaded.reads_trees is None:
        loaded.reads_trees = _reads_trees(loaded)
    return loaded.reads_trees


def _reads_trees(loaded: Loaded) -> bool:
    """Try it: releases of transformers before 5 drop the mask of some families, or refuse it."""
    import torch

    a, b, c, d, e, f = (loaded.vocabulary * place // 7 for place in range(1, 7))
    rows: list[list[int]] = [[a, b, c, d, e], [a, b, d, f], [c, f, a]]
    found = [np.zeros(len(row) - 1, dtype=np.float32) for row in rows]
    families = [CandidateGroup(2, ((0, rows[0]), (1, rows[1]))), CandidateGroup(0, ((2, rows[2]),))]
    with torch.inference_mode():
        try:
            _score_part(loaded, [plant(family) for family in families], found)
        except (RuntimeError, TypeError, ValueError):
            return False
        for row, values in zip(rows, found, strict=True):
            ids = torch.tensor([row], device=loaded.model.device)
            logits = loaded.model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            alone = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            if not np.allclose(values, alone.cpu().numpy(), rtol=1e-4, atol=1e-4):
                return False
    return True


def plant(family: CandidateGroup) -> Tree:
    """The tree of a family; candidates of one token have no branch.

    Example  [5, 6, 7] and [5, 6, 8]: nodes 5 and 6; branches 5 to 6, 6 to 7, 6 to 8; paths 0 1 and 0 2
    """
    children: dict[tuple[int, int], int] = {}
    parents: list[int] = []
    tokens: list[int] = []
    walks = []
    for _, row in family.rows:
        walk = [-1]
        for token in row:
            node = children.setdefault((walk[-1], token), len(tokens))
            if node == len(tokens):
                tokens.append(token)
                parents.append(walk[-1])
            walk.append(node)
        walks.append(walk[2:])
    above = np.array(parents)
    leads = np.flatnonzero(above >= 0)
    inner = np.unique(above[leads])  # parents come before their children, and stay so
    number = np.full(len(tokens), -1)
    number[inner] = np.arange(len(inner))
    leads = leads[np.argsort(number[above[leads]], kind="stable")]
    branch = np.empty(len(tokens), dtype=np.int64)
    branch[leads] = np.arange(len(leads))
    seen = np.eye(len(inner), dtype=bool)
    depths = np.zeros(len(inner), dtype=np.int64)
    for node, parent in enumerate(above[inner]):
        if parent >= 0:
            seen[node] |= seen[number[parent]]
            depths[node] = depths[number[parent]] + 1
    ids = np.array(tokens)
    paths = [(place, branch[walk]) for (place, _), walk in zip(family.rows, walks, strict=True) if walk]
    return Tree(ids[inner], depths, seen, number[above[leads]], ids[leads], paths)


def score_trees(loaded: Loaded, families: Sequence[CandidateGroup], scores: list[np.ndarray]) -> None:
    """Read families as trees, several in a pass; fill `scores` at their candidates' places.

    scores  for each candidate of the caller (tokens - 1,) float32 log probabilities, in nats; filled in place
    """
    trees = [plant(family) for family in families]
    for part in batch_rows([len(tree.tokens) for tree in trees], device_kind(loaded), pass_positions(loaded)):
        _score_part(loaded, [trees[number] for number in part], scores)


def _score_part(loaded: Loaded, trees: Sequence[Tree], scores: list[np.ndarray]) -> None:
    import torch

    device, dtype = loaded.model.device, loaded.model.dtype
    width = max(len(tree.tokens) for tree in trees)
    ids, depths = np.zeros((2, len(trees), width), dtype=np.int64)
    where = np.zeros((len(trees), width), dtype=bool)
    # What fills a row up sees everything, because a row of attention that sees nothing is no number, and nothing sees it.
    seen = np.ones((len(trees), 1, width, width), dtype=bool)
    for row, tree in enumerate(trees):
        size = len(tree.tokens)
        ids[row, :size], depths[row, :size], where[row, :size] = tree.tokens, tree.depths, True
        seen[row, 0, :size] = False
        seen[row, 0, :size, :size] = tree.seen
    mask = torch.zeros(seen.shape, dtype=dtype, device=device)
    mask.masked_fill_(torch.from_numpy(~seen).to(device), torch.finfo(dtype).min)
    firsts = np.cumsum([0, *(len(tree.tokens) for tree in trees)])
    of = np.concatenate([tree.of + first for tree, first in zip(trees, firsts[:-1], strict=True)])
    targets = np.concatenate([tree.targets for tree in trees])
    _, found = log_probabilities(
        loaded, torch.from_numpy(where).to(device), torch.from_numpy(of).to(device),
        torch.from_numpy(targets).to(device), input_ids=torch.from_numpy(ids).to(device),
        position_ids=torch.from_numpy(depths).to(device), attention_mask=mask, use_cache=False,
    )  # fmt: skip
    ends = np.cumsum([len(tree.targets) for tree in trees])[:-1]
    for tree, values in zip(trees, np.split(found.cpu().numpy(), ends), strict=True):
        for place, path in tree.paths:
            scores[place][:] = values[path]
