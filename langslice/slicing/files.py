"""Files of a slice: what was said of unknown ones, all once more for verification, what was left out, slice.json and the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.options import Choice, listed
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import SideFile
from langslice.planning.slice_files import make_files
from langslice.planning.source import Source
from langslice.structure.final_edits import finish_files
from langslice.tokenizer import Rewrite
from langslice.verification.record import part_table, write_record
from langslice.writing.shards import TensorEdit

if TYPE_CHECKING:
    from langslice.verification.main import Verification


def make_again(source: Source, made: SlicePlan, folder: Path, *, finished: bool) -> None:
    """Make the files of a slice other than its weights once more, in an empty folder, for verification to compare.

    finished  the slice has its own card, and the source's is set aside
    """
    from langslice.reporting.source_card import set_source_card_aside

    make_files(source, made, folder)
    if made.structure is not None:
        finish_files(source.checkpoint, made.structure, folder)
    if finished:
        set_source_card_aside(folder)


def left_out_files(files: Sequence[SideFile], rewrite: Rewrite, made: SlicePlan) -> dict[str, str]:
    """File or tensor of the source -> why it is not in the slice."""
    left_out = {file.name: file.reason for file in files if file.action == "leave out"}
    left_out.update(rewrite.left_out)
    left_out.update({name: tensor.reason for name, tensor in made.tensors.items() if tensor.action == "drop"})
    return left_out


def write_metadata(
    staging: Path,
    name: str,
    source: Source,
    made: SlicePlan,
    edits: Mapping[str, TensorEdit],
    rewrite: Rewrite,
    left_out: Mapping[str, str],
    verification: Verification | None,
    pre_tokenizer: str | None,
) -> None:
    """Write slice.json and the model card of a slice called `name`; the source's card is set aside.

    pre_tokenizer  the hash by which llama.cpp knows the tokenizer that the model began with
    """
    from langslice.reporting.card import write_card
    from langslice.reporting.slice_folder import read_slice
    from langslice.reporting.source_card import set_source_card_aside

    set_source_card_aside(staging)
    checkpoint = source.checkpoint
    parts = part_table(made, edits, checkpoint)
    pruned = None if made.weights is None else made.pruned
    source.release_tokenizer()
    head = write_record(staging, checkpoint, made, rewrite, left_out, verification, pruned, parts, pre_tokenizer)
    write_card(staging, read_slice(staging, head, made, name=name))


def settled_files(request: Mapping[str, Any], choice: Choice) -> dict[str, list[str]]:
    """What was said of unknown files in a plan and next to it; `verify` finds it in the record."""
    found: dict[str, list[str]] = {}
    for name in ("carry", "leave_out"):
        patterns = dict.fromkeys([*listed(request.get(name)), *listed(choice.get(name))])
        if patterns:
            found[name] = list(patterns)
    return found
