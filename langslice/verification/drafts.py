"""The map of a draft's slice: every draft id proposes the token that it proposed before, by the head's row that it had.

Computed from the two checkpoints and the kept rows alone, not from what wrote them: the new map is followed into the target's
slice, from there back into the target, and there the source's own map must lead to a row of the head with the same bytes.
"""

from __future__ import annotations

import numpy as np

from langslice.errors import CheckpointError
from langslice.model.checkpoint import Checkpoint
from langslice.model.draft_head import HEAD, DraftMap, is_draft, read_draft_map
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.tensors import as_rows

_WINDOW = 4096
NO_CLASS = "not run: transformers has no class for a draft model, whose tensors are compared byte for byte"


def check_draft_map(source: Source, sliced: Checkpoint, plan: SlicePlan) -> Check | None:
    """Follow the new map and compare with the old one; None for what has no map.

    A map that contradicts itself, or its own head and configuration, is a difference.
    """
    before = source.draft
    if before is None or plan.keeps_vocabulary:
        return None
    try:
        after = read_draft_map(sliced, len(plan.new_to_old))
    except CheckpointError as error:
        return Check("draft map", False, "the slice's map is damaged", (error.message,))
    if after is None:
        return Check("draft map", False, "the slice has no map")
    wrong = _differences(source, sliced, plan, before, after)
    return Check(
        "draft map",
        not wrong,
        f"{len(after.targets)} draft ids, each followed through the slice back to the target's token and the head's old row",
        tuple(wrong[:MAX_EXAMPLES]),
    )


def _differences(source: Source, sliced: Checkpoint, plan: SlicePlan, before: DraftMap, after: DraftMap) -> list[str]:
    old_of = {int(target): draft for draft, target in enumerate(before.targets.tolist())}
    kept = plan.kept.tolist()
    in_slice = set(kept)
    expected = [draft for draft, target in enumerate(before.targets.tolist()) if target in in_slice]
    wrong, rows = [], []
    for draft, target in enumerate(after.targets.tolist()):
        old = old_of.get(kept[target]) if target < len(kept) else None
        rows.append(old)
        if old is None:
            wrong.append(f"draft id {draft} is new id {target}, which the source's draft does not propose")
    if not wrong and rows != expected:
        wrong.append(f"{len(rows)} draft ids, expected the {len(expected)} whose token is in the slice, in their order")
    if wrong or HEAD not in source.checkpoint.tensors:
        return wrong
    old_head, new_head = as_rows(source.checkpoint.tensors[HEAD], 0), as_rows(sliced.tensors[HEAD], 0)
    for start in range(0, len(expected), _WINDOW):
        these = np.asarray(expected[start : start + _WINDOW])
        off = (old_head[these] != new_head[start : start + len(these)]).any(axis=(1, 2))
        wrong += [f"row {start + int(at)} of {HEAD} is not old row {these[at]}" for at in np.flatnonzero(off)]
    return wrong


def no_class(checkpoint: Checkpoint, name: str) -> Check | None:
    """What is said in place of a check that loads the model; None where it can be made."""
    return Check(name, None, NO_CLASS) if is_draft(checkpoint.config) else None
