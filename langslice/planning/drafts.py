"""A draft model cut to the vocabulary of a slice of its target: the same rows, and of its own head those that have a target left.

What goes where is computed from the slice's plan alone; a draft has no tokenizer, and its text is its target's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from langslice.errors import PlanError
from langslice.model.axes import refuse_packed
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.draft_head import D2T, T2D, DraftMap, is_draft, write_values
from langslice.model.folder_kinds import DRAFT_SIZE
from langslice.options import Choice, codes, flag_of, request_json
from langslice.planning.options import PlanOptions
from langslice.planning.plan import SlicePlan, digest_rows
from langslice.planning.side_files import Restructure, id_fields
from langslice.planning.source import Source
from langslice.planning.tensors import plan_tensors, with_structure

_TAKEN = ("like", "carry", "leave_out", "ignore_field", "revision", "token", "cache_dir")
_SPECULATORS = "speculators_config"


def refuse_drafts(checkpoint: Checkpoint, choice: Choice) -> None:
    """Refuse a choice of tokens or layers for a draft model, whose numbering is its target's, and --like for any other."""
    if is_draft(checkpoint.config):
        raise PlanError(
            f"{checkpoint.model_id} is a draft model: its token ids are those of its target",
            hint="slice the target first, then `langslice slice DRAFT --like SLICE`",
        )
    if choice.get("like"):
        raise PlanError(
            f"--like is for draft models, and {checkpoint.model_id} is none: it has no {D2T}, {T2D} or {DRAFT_SIZE}",
            hint="--only-tokens SLICE/tokenizer.json keeps the tokens of another slice",
        )


def draft_plan(source: Source, target: SlicePlan, choice: Choice) -> SlicePlan:
    """The plan by which a draft follows its target.

    target  the plan of the target's slice
    Raises  PlanError where the two do not fit, or the choice says more than --like
    """
    checkpoint = source.checkpoint
    beside = [name for name in choice if name not in _TAKEN]
    if beside:
        raise PlanError(
            f"{flag_of(PlanOptions, beside[0])} together with --like has no effect: a draft keeps what its target's slice keeps",
            hint="leave it out",
        )
    _check_fit(source, target)
    refuse_packed(source.axes, checkpoint.shapes)
    ignore = frozenset(codes(choice.get("ignore_field")))
    _check_named(source, target, ignore)
    plan = SlicePlan(
        model=checkpoint.model_id,
        revision=checkpoint.revision,
        model_type=str(checkpoint.config["model_type"]),
        fingerprint=source.fingerprint,
        rows=source.rows,
        kept=target.kept,
        tokens=(None,) * len(target.kept),
        reasons=target.reasons,
        tensors=plan_tensors(source),
        padding=target.padding,
        checked=digest_rows(target.kept),
        ignore_fields=tuple(sorted(ignore)),
        request=request_json(choice),
        notes=tuple(_notes(source, target)),
    )
    return with_structure(plan, source)


def _check_fit(source: Source, target: SlicePlan) -> None:
    if target.rows != source.rows:
        raise PlanError(
            f"the draft reads a vocabulary of {source.rows:,} rows, the slice was cut from one of {target.rows:,} "
            f"({target.model})",
            hint="is it the draft of this model?",
        )
    if target.keeps_vocabulary:
        raise PlanError(
            f"the slice of {target.model} keeps its whole vocabulary, which the draft fits as it is",
            hint="do not slice it",
        )
    if target.structure is not None and target.structure.hidden:
        raise PlanError(
            f"the slice has {len(target.structure.hidden):,} hidden dimensions, and the draft reads all of the target's",
            hint="slice the target without --hidden-size",
        )
    draft = source.draft
    if draft is not None and not len(draft.kept(target.id_map().new_of)):
        raise PlanError(
            "no draft id stays: the slice keeps none of the tokens that the draft can propose",
            hint="is it a draft for these languages?",
        )


def _check_named(source: Source, target: SlicePlan, ignore: frozenset[str]) -> None:
    """Refuse a configuration that names a token which the target's slice dropped."""
    new_of = target.id_map().new_of
    for field in id_fields(source.checkpoint, source.files, rows=source.rows, ignore=ignore):
        gone = [old for old in field.ids if new_of[old] < 0]
        if gone:
            raise PlanError(
                f"the draft's {field} names token id {gone[0]}, which the slice of its target does not have",
                hint=f"set it to null in the draft's {field.file}, or keep the token when slicing the target (--keep-tokens)",
            )


def _notes(source: Source, target: SlicePlan) -> list[str]:
    notes = []
    if source.draft is not None:
        stay = len(source.draft.kept(target.id_map().new_of))
        notes.append(f"{stay:,} of {len(source.draft.targets):,} draft ids stay; the others have no token in the slice")
    if target.structure is not None:
        notes.append(
            "layers, heads or neurons of the target went too: the draft reads hidden states that it was not trained on"
        )
    if _SPECULATORS in source.checkpoint.config:
        notes.append(f"{_SPECULATORS} in config.json names the target as it was: give the slice to the client yourself")
    return notes


def restructured_draft(source: Source, plan: SlicePlan, inner: Restructure) -> Restructure:
    """The same for a draft: with the size of its own vocabulary, too."""
    draft = source.draft
    if not is_draft(source.checkpoint.config) or plan.keeps_vocabulary:
        return inner
    size = None if draft is None else len(draft.kept(plan.id_map().new_of))
    return partial(_with_size, inner, source.checkpoint.config_name, len(plan.new_to_old) if size is None else size)


def _with_size(inner: Restructure, config: str, size: int, name: str, document: dict[str, Any]) -> dict[str, Any]:
    document = inner(name, document)
    return resized(document, size) if name == config else document


def resized(document: Mapping[str, Any], size: int) -> dict[str, Any]:
    """A draft's config.json for a head of another size."""
    return {
        key: size
        if key == DRAFT_SIZE and value is not None
        else resized(value, size)
        if isinstance(value, dict)
        else value
        for key, value in document.items()
    }


def finish_draft(source: Source, plan: SlicePlan, staging: Path) -> None:
    """Write the map of a draft's slice over the rows of the source's, which lie in files of the staging folder's own."""
    if source.draft is None or plan.keeps_vocabulary:
        return
    sliced = sliced_map(source.draft, plan)
    prefix = source.checkpoint.model_folder.relative_to(source.checkpoint.folder)
    tensors = open_checkpoint(staging / prefix).tensors
    for name, values in ((D2T, sliced.offsets), (T2D, sliced.flags)):
        if name in tensors:
            write_values(tensors[name], values)


def sliced_map(draft: DraftMap, plan: SlicePlan) -> DraftMap:
    """The map between a draft's slice and its target's."""
    return draft.renumbered(plan.id_map().new_of, len(plan.new_to_old))
