"""Put what was trained on a slice back into the model that it was sliced from: the inverse of `slice`.

By default the vocabulary comes back and the structure stays as it is in the slice, so that kept text is scored as the
slice scores it. With `everything`, layers, heads, neurons and pruned weights that were removed return with the base's
values between the trained ones. Either way verification is one sentence: slicing the restored model by the same plan gives
the trained slice again, and what was outside the slice is the base's, byte for byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langslice.errors import PlanError, VerificationError
from langslice.model.axes import refuse_packed
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.folder_kinds import DRAFT
from langslice.options import listed, taking
from langslice.planning.derived_files import DerivedFileInputs, write_derived
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import write_side_files
from langslice.planning.source import Source, settled
from langslice.planning.tensors import plan_tensors, tensor_edits
from langslice.planning.validate import check_source
from langslice.progress import Report, adding_up, silent
from langslice.restoration.card import write_restored_card
from langslice.restoration.merge import (
    TensorOrigin,
    find_origins,
    float_rows,
    lay_over,
    merged_checkpoint,
    without_padding,
)
from langslice.restoration.options import RestoreOptions
from langslice.structure.config_files import restructured
from langslice.tokenizer import copy_tokenizer
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.file_names import FILE_NAME
from langslice.verification.messages import failure_text, verify_slice
from langslice.verification.record import library_versions, read_document, read_plan_at, read_record
from langslice.writing.shards import WriteReport, check_output, output_size, staging_folder, write_shards

if TYPE_CHECKING:
    from langslice.verification.main import Verification

RECORD = "restore.json"
FORMAT = "langslice-restore/1"
_SAMPLED_ROWS = 2048


@dataclass(frozen=True)
class RestoreResult:
    """What `restore` made.

    out      the folder
    rows     tokens of the slice, and of the restored model
    tensors  "trained" (whole from the slice), "merged" (both), "base" -> number of tensors
    written  bytes and files
    verification    None when verification was switched off
    notes    what else a user should know
    """

    out: Path
    rows: tuple[int, int]
    tensors: Mapping[str, int]
    written: WriteReport
    verification: Verification | None
    notes: tuple[str, ...] = ()


@taking(RestoreOptions)
def restore(
    healed: str | Path, out: str | Path, *, options: RestoreOptions, overwrite: bool = False, report: Report = silent
) -> RestoreResult:
    """Write the full model again, with the rows and blocks that were trained on a slice in their old places.

    healed      the trained slice: a folder with slice.json, or any checkpoint of the slice's shapes next to `plan`
    out         folder to make
    options     see RestoreOptions; `plan` may be slice.json, plan or folder of the slice, `verify` slices the result again in
                thought, and compares it with `healed`
    Raises      PlanError when base, plan and slice do not belong together; CheckpointError when the slice was saved in a
                narrower float type than the base; OutputError; VerificationError
    """
    out = Path(out)
    trained = open_checkpoint(healed)
    source = open_checkpoint(options.base, **options.source())
    for folder in (source.folder, trained.folder):
        check_output(out, source=folder, overwrite=overwrite)
    made, everything = _plan_of(trained.folder, options.plan), options.everything
    base = settled(source, made.request, needs_tokenizer=True)
    check_source(made, base)
    _check_something_returns(made, everything)
    copies = _copies(base)
    origins, notes = find_origins(source, trained, made, tensor_edits(made, base), everything=everything, copies=copies)
    structure = None if everything else made.structure
    told: list[str] = [*source.notes, *notes]
    with staging_folder(out, source=source.folder, overwrite=overwrite, notice=told.append) as staging:
        prefix = source.model_folder.relative_to(source.folder)
        (staging / prefix).mkdir(parents=True, exist_ok=True)
        whole = replace(made, kept=np.arange(made.rows), padding=(), extension=(), structure=structure)
        write_side_files(
            source, base.files, whole.id_map(), staging, implied={}, ignore=frozenset(made.ignore_fields),
            restructure=partial(restructured, source, None if structure is None else base.anatomy, structure),
        )  # fmt: skip
        write_derived(DerivedFileInputs(base, whole), staging)
        copy_tokenizer(base.tokenizer, staging / prefix)
        written = _write_weights(source, origins, staging, prefix, options.threads, report)
        _finish_config(trained, staging / prefix, structure is not None and structure.style == "sliced")
        if structure is None and (source.folder / FILE_NAME).is_file():  # the base is a slice itself, as this is now
            shutil.copyfile(source.folder / FILE_NAME, staging / FILE_NAME)
        verification = None
        if options.verify:
            verification = _prove(source, trained, staging, made, origins, everything, listed(options.text), report)
            if not verification.passed:
                raise VerificationError(
                    failure_text(verification, f"{out} was not written: it differs from the trained slice")
                )
        _write_record(staging, source, trained, made, everything, verification)
        write_restored_card(staging, out.name, source, made, structure is not None)
    counted = {
        "trained": sum(origin.trained is not None and not origin.laid_over for origin in origins.values()),
        "merged": sum(origin.laid_over for origin in origins.values()),
        "base": sum(origin.trained is None and origin.edit.action != "drop" for origin in origins.values()),
    }
    return RestoreResult(out, (len(made.kept), made.rows), counted, written, verification, (*told, *written.notes))


def _plan_of(trained: Path, plan: str | Path | None) -> SlicePlan:
    """The plan that the slice was made by: from the trained folder, or from where the user says that it is."""
    if plan is None:
        if not (trained / FILE_NAME).is_file():
            raise PlanError(
                f"{trained} has no {FILE_NAME}, so nobody knows which rows of the base its rows are",
                "name the record of the slice that was trained: --plan SLICE/slice.json",
            )
        return read_record(trained)
    return read_plan_at(Path(plan))[0]


def _check_something_returns(plan: SlicePlan, everything: bool) -> None:
    if plan.structure is not None and plan.structure.rotation:
        raise PlanError(
            "the vocabulary of a slice whose hidden states were rotated cannot come back: the base's rows are not rotated",
            "train the whole model, or slice by --hidden-by activation",
        )
    if everything and plan.structure is not None and plan.structure.hidden:
        raise PlanError(
            "hidden dimensions that were removed cannot come back: norms were scaled for those that stayed",
            "restore without --everything, which keeps the slice's hidden size",
        )
    if plan.model_type == DRAFT:
        raise PlanError(
            "a draft model's slice cannot be put back: its map is of the slice's numbering",
            "train the draft of the whole target instead",
        )
    if plan.keeps_vocabulary and not everything:
        raise PlanError(
            "the slice has the whole vocabulary already, so there is nothing to put back",
            "--everything brings back layers, heads, neurons and pruned weights with the base's values",
        )


def _copies(source: Source) -> frozenset[str]:
    """Names in a pickle that share their bytes with another table; safetensors holds these once."""
    from langslice.planning.build import tied_copies

    return frozenset(tied_copies(source))


def _write_weights(
    source: Checkpoint, origins: Mapping[str, TensorOrigin], staging: Path, prefix: Path, threads: int, report: Report
) -> WriteReport:
    """Stream what is whole, then lay the trained rows and columns over what is not."""
    scratch = staging / ".widened"
    scratch.mkdir()
    merged = merged_checkpoint(source, origins, scratch)
    edits = {name: origin.edit for name, origin in origins.items()}
    progress = adding_up(report, "writing", output_size(merged, edits))
    written = write_shards(merged, edits, staging / prefix, threads=threads, progress=progress)
    shutil.rmtree(scratch)
    found = open_checkpoint(staging).tensors
    over = {name: origin for name, origin in origins.items() if origin.laid_over}
    laying = adding_up(
        report, "laying trained rows over", sum(o.trained.size_bytes for o in over.values() if o.trained)
    )
    for name, origin in over.items():
        laying(lay_over(found[origin.edit.name or name], origin))
    return written


def _finish_config(trained: Checkpoint, folder: Path, sliced: bool) -> None:
    """The float type that the weights have now, and the code of a model whose layers have sizes of their own."""
    path = folder / "config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    types = [key for key in ("torch_dtype", "dtype") if isinstance(trained.config.get(key), str)]
    if types and trained.config[types[0]] not in (document.get("torch_dtype"), document.get("dtype")):
        for key in ("torch_dtype", "dtype"):
            document.pop(key, None)
        document[types[0]] = trained.config[types[0]]
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if sliced:
        from langslice.structure.sliced_files import write_module

        write_module(folder, document)


def _prove(
    source: Checkpoint,
    trained: Checkpoint,
    staging: Path,
    made: SlicePlan,
    origins: Mapping[str, TensorOrigin],
    everything: bool,
    text: Sequence[str],
    report: Report,
) -> Verification:
    """Slicing the restored model gives the trained slice, and the rest is the base's."""
    from langslice.verification.main import SlicePair
    from langslice.verification.tensors import check_bytes

    restored = open_checkpoint(staging)
    whole = settled(restored, made.request, needs_tokenizer=True)
    made = replace(made, trained=False)  # what was trained must be found in the restored model, byte for byte
    if everything:
        actions = {name: origin.edit.action for name, origin in origins.items()}
        tensors = {name: tensor for name, tensor in made.tensors.items() if actions[name] != "drop"}
        again = replace(made, tensors=tensors, weights=None)
    else:
        tensors = plan_tensors(whole)
        refuse_packed(whole.axes, restored.shapes)
        again = replace(
            made, rows=whole.rows, per_layer_rows=whole.per_layer_rows, tensors=tensors, structure=None, weights=None,
            pruned={},
        )  # fmt: skip
    # Whoever trained the slice may have saved its files in another form: they are not compared with those made again.
    both = SlicePair(whole, trained.folder, again)
    verification = verify_slice(both, text, report)
    checks = list(verification.checks)
    if made.padding or made.extension:  # neither rows without a token nor those of new ones have a place in the base
        plain = replace(again, padding=(), extension=())
        compared = check_bytes(whole, without_padding(trained, again), plain)
        checks = [compared if check.name == "bytes" else check for check in checks]
    return replace(verification, checks=(*checks, _check_untouched(source, restored, origins)))


def _check_untouched(source: Checkpoint, restored: Checkpoint, origins: Mapping[str, TensorOrigin]) -> Check:
    """Rows of tokens that the slice did not have, and tensors that it did not have, equal the base's."""
    rng = np.random.default_rng(0)
    wrong: list[str] = []
    count = 0
    for name, origin in origins.items():
        if origin.edit.action == "drop" or (origin.trained is not None and 0 not in origin.places):
            continue
        taken = origin.places[0].target if origin.trained is not None else np.empty(0, np.int64)
        shape = source.tensors[name].shape
        outside = np.setdiff1d(np.arange(shape[0] if shape else 1), taken)
        rows = (
            np.unique(rng.choice(outside, min(_SAMPLED_ROWS, outside.size), replace=False)) if outside.size else outside
        )
        expected = float_rows(source.tensors[name], rows)
        for dim, values in origin.edit.indices.items():
            expected = np.take(expected, values, axis=dim)
        found = float_rows(restored.tensors[origin.edit.name or name], rows)
        count += int(rows.size)
        if not np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f"):
            wrong.append(f"{name}: rows outside the slice differ from the base's")
    detail = f"{count} sampled rows outside the slice are the base's"
    return Check("untouched", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def _write_record(
    folder: Path,
    source: Checkpoint,
    trained: Checkpoint,
    plan: SlicePlan,
    everything: bool,
    verification: Verification | None,
) -> None:
    """Write restore.json: what was put together from what."""
    record = trained.folder / FILE_NAME
    document = {
        "format": FORMAT,
        "versions": library_versions(),
        "base": {"model": source.model_id, "revision": source.revision, "fingerprint": plan.fingerprint},
        "slice": {"folder": trained.folder.name, "tokens": len(plan.kept)},
        "healed": read_document(record).get("healed") if record.is_file() else None,
        "everything": everything,
        "proof": None if verification is None else verification.to_json(),
    }
    (folder / RECORD).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
