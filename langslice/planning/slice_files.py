"""Write the files of a slice other than its weights, as a plan has them: configuration, tokenizer, side files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from langslice.files.memory import return_freed_memory
from langslice.model.folder_kinds import BARE
from langslice.planning.derived_files import DerivedFileInputs, write_derived
from langslice.planning.drafts import restructured_draft
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import KEPT_IDS, write_side_files
from langslice.planning.source import Source
from langslice.structure.config_files import restructured
from langslice.tokenizer import Rewrite, SourceTokenizer, check_tokenizer, copy_tokenizer, write_tokenizer
from langslice.tokenizer.absent import ABSENT


def write_files(source: Source, made: SlicePlan, staging: Path) -> Rewrite:
    """Write everything but the weights into the staging folder, and load what was written."""
    rewrite = make_files(source, made, staging)
    if not _copies_tokenizer(source.tokenizer, made):
        folder = staging / source.checkpoint.model_folder.relative_to(source.checkpoint.folder)
        tokens = [token for token in made.tokens if token is not None]
        check_tokenizer(rewrite, folder, [*tokens, *(one.token for one in made.extension)])
    return rewrite


def make_files(source: Source, made: SlicePlan, staging: Path) -> Rewrite:
    """The same, without loading what was written."""
    checkpoint, tokenizer = source.checkpoint, source.tokenizer
    folder = staging / checkpoint.model_folder.relative_to(checkpoint.folder)
    folder.mkdir(parents=True, exist_ok=True)
    anatomy = None if made.structure is None else source.anatomy
    write_side_files(
        checkpoint, source.files, made.id_map(), staging, implied=made.implied_ids, ignore=frozenset(made.ignore_fields),
        restructure=restructured_draft(source, made, partial(restructured, checkpoint, anatomy, made.structure)),
    )  # fmt: skip
    write_derived(DerivedFileInputs(source, made), staging)
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
        tokenizer, [old for old in made.kept.tolist() if old < size], folder, closed=True, check=False,
        extension=made.extension,
    )  # fmt: skip
