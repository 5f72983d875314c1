"""Write the files of a slice other than its weights, as a plan has them: configuration, tokenizer, side files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from langslice.files.memory import return_freed_memory
from langslice.model.checkpoint import Checkpoint
from langslice.model.folder_kinds import BARE
from langslice.options import listed
from langslice.planning.derived_files import DerivedFileInputs, write_derived
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import KEPT_IDS, SideFile, plan_side_files, write_side_files
from langslice.structure.config_files import restructured
from langslice.tokenizer import Rewrite, SourceTokenizer, check_tokenizer, copy_tokenizer, write_tokenizer
from langslice.tokenizer.absent import ABSENT


def side_files(checkpoint: Checkpoint, tokenizer: SourceTokenizer, made: SlicePlan) -> list[SideFile]:
    """What happens to every other file of the source, as the plan's request settles it."""
    return plan_side_files(
        checkpoint,
        tokenizer.files,
        carry=listed(made.request.get("carry")),
        leave_out=listed(made.request.get("leave_out")),
        tokens=tokenizer.tokens,
    )


def write_files(
    checkpoint: Checkpoint, tokenizer: SourceTokenizer, made: SlicePlan, files: Sequence[SideFile], staging: Path
) -> Rewrite:
    """Write everything but the weights into the staging folder, and load what was written."""
    rewrite = make_files(checkpoint, tokenizer, made, files, staging)
    if not _copies_tokenizer(tokenizer, made):
        folder = staging / checkpoint.model_folder.relative_to(checkpoint.folder)
        check_tokenizer(rewrite, folder, [token for token in made.tokens if token is not None])
    return rewrite


def make_files(
    checkpoint: Checkpoint, tokenizer: SourceTokenizer, made: SlicePlan, files: Sequence[SideFile], staging: Path
) -> Rewrite:
    """The same, without loading what was written."""
    folder = staging / checkpoint.model_folder.relative_to(checkpoint.folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_side_files(
        checkpoint, files, made.id_map(), staging, implied=made.implied_ids, ignore=frozenset(made.ignore_fields),
        restructure=partial(restructured, checkpoint, made.structure),
    )  # fmt: skip
    write_derived(DerivedFileInputs(checkpoint, tokenizer, made), files, staging)
    if checkpoint.config.get("model_type") in BARE:
        np.save(folder / KEPT_IDS, made.new_to_old)
    return_freed_memory()
    if _copies_tokenizer(tokenizer, made):
        return copy_tokenizer(tokenizer, folder)
    return _write_tokenizer(tokenizer, made, folder)


def _copies_tokenizer(tokenizer: SourceTokenizer, made: SlicePlan) -> bool:
    """Whether tokenizer files stay as they are: no token is removed, or there are none."""
    return made.keeps_vocabulary or tokenizer.kind == ABSENT


def _write_tokenizer(tokenizer: SourceTokenizer, made: SlicePlan, folder: Path) -> Rewrite:
    size = len(tokenizer.tokens)
    # Whoever made or loaded the plan has closed it for this tokenizer: planning, or planning/validate.py by its digest.
    return write_tokenizer(
        tokenizer, [old for old in made.kept.tolist() if old < size], folder, closed=True, check=False
    )
