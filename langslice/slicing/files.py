"""The files of a slice beside its weights: configuration, tokenizer, side files, and at the end slice.json and the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langslice.files.memory import return_freed_memory
from langslice.model.checkpoint import Checkpoint
from langslice.model.folder_kinds import BARE
from langslice.planning.derived_files import DerivedFileInputs, write_derived
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import KEPT_IDS, SideFile, write_side_files
from langslice.planning.source import Source
from langslice.structure.config_files import restructured
from langslice.structure.final_edits import finish_files
from langslice.tokenizer import Rewrite, SourceTokenizer, check_tokenizer, copy_tokenizer, write_tokenizer
from langslice.tokenizer.absent import ABSENT
from langslice.verification.record import part_table, write_record
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from langslice.verification.main import Verification


def write_files(source: Source, made: SlicePlan, staging: Path) -> Rewrite:
    """Write everything but the weights into the staging folder, and load what was written."""
    rewrite = _make_files(source, made, staging)
    if not _copies_tokenizer(source.tokenizer, made):
        folder = staging / source.checkpoint.model_folder.relative_to(source.checkpoint.folder)
        check_tokenizer(rewrite, folder, [token for token in made.tokens if token is not None])
    return rewrite


def make_again(source: Source, made: SlicePlan, folder: Path, *, finished: bool) -> None:
    """Make the files of a slice beside its weights once more, in an empty folder, for the proof to compare.

    finished  the slice has its own card, and the source's is set aside
    """
    from langslice.reporting.source_card import set_source_card_aside

    _make_files(source, made, folder)
    if made.structure is not None:
        finish_files(source.checkpoint, made.structure, folder)
    if finished:
        set_source_card_aside(folder)


def _make_files(source: Source, made: SlicePlan, staging: Path) -> Rewrite:
    checkpoint, tokenizer = source.checkpoint, source.tokenizer
    folder = staging / checkpoint.model_folder.relative_to(checkpoint.folder)
    folder.mkdir(parents=True, exist_ok=True)
    anatomy = None if made.structure is None else source.anatomy
    write_side_files(
        checkpoint, source.files, made.id_map(), staging, implied=made.implied_ids, ignore=frozenset(made.ignore_fields),
        restructure=partial(restructured, checkpoint, anatomy, made.structure),
    )  # fmt: skip
    write_derived(DerivedFileInputs(source, made), staging)
    if checkpoint.config.get("model_type") in BARE:
        np.save(folder / KEPT_IDS, made.new_to_old)
    return_freed_memory()
    if _copies_tokenizer(tokenizer, made):
        return copy_tokenizer(tokenizer, folder)
    return _write_tokenizer(tokenizer, made, folder)


def _copies_tokenizer(tokenizer: SourceTokenizer, made: SlicePlan) -> bool:
    """Whether tokenizer files stay as they are: no token is cut, or there are none."""
    return made.keeps_vocabulary or tokenizer.kind == ABSENT


def _write_tokenizer(tokenizer: SourceTokenizer, made: SlicePlan, folder: Path) -> Rewrite:
    size = len(tokenizer.tokens)
    # Whoever made or loaded the plan has closed it for this tokenizer: planning, or planning/validate.py by its digest.
    return write_tokenizer(
        tokenizer, [old for old in made.kept.tolist() if old < size], folder, closed=True, check=False
    )


def left_out_files(files: Sequence[SideFile], rewrite: Rewrite, made: SlicePlan) -> dict[str, str]:
    """File or tensor of the source -> why it is not in the slice."""
    left_out = {file.name: file.reason for file in files if file.action == "leave out"}
    left_out.update(rewrite.left_out)
    left_out.update({name: tensor.reason for name, tensor in made.tensors.items() if tensor.action == "drop"})
    return left_out


def write_metadata(
    staging: Path,
    name: str,
    checkpoint: Checkpoint,
    made: SlicePlan,
    edits: Mapping[str, TensorEdit],
    rewrite: Rewrite,
    left_out: Mapping[str, str],
    verification: Verification | None,
) -> None:
    """Write slice.json and the model card of a slice called `name`; the source's card is set aside."""
    from langslice.reporting.card import write_card
    from langslice.reporting.slice_folder import read_slice
    from langslice.reporting.source_card import set_source_card_aside

    set_source_card_aside(staging)
    parts = part_table(made, edits, checkpoint)
    pruned = None if made.weights is None else made.pruned
    head = write_record(staging, checkpoint, made, rewrite, left_out, verification, pruned, parts)
    write_card(staging, read_slice(staging, head, made, name=name))
