"""The main job: open → choose → plan → slice → verify, each step a function that can be called alone.

Everything below the public functions is arithmetic of other rooms; this file only says in which order it happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.corpus.sources import find_corpora
from langslice.errors import LangsliceError, PlanError, VerificationError
from langslice.files.memory import return_freed_memory
from langslice.formats.gguf_in.container import is_gguf
from langslice.formats.pre_tokenizers import original_hash
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.draft_head import is_draft
from langslice.options import Choice, SourceOptions, codes, listed, taking
from langslice.planning.derived_files import DerivedFileInputs, check_derived
from langslice.planning.drafts import draft_plan, finish_draft
from langslice.planning.options import PlanOptions
from langslice.planning.plan import SlicePlan, load_plan
from langslice.planning.slice_files import write_files
from langslice.planning.source import Source, settled
from langslice.planning.tensors import part_sizes, tensor_edits, write_extension
from langslice.planning.validate import check_source, fitting_plan, refuse_beside_plan
from langslice.planning.weights import prune_staged
from langslice.progress import Report, adding_up, silent
from langslice.slicing.files import left_out_files, make_again, settled_files, write_metadata
from langslice.slicing.options import CountOptions, InspectOptions, MaskOptions, SliceOptions, VerifyOptions
from langslice.slicing.result import SliceResult
from langslice.structure.final_edits import finish_structure
from langslice.verification.derived import refuse_unproven
from langslice.verification.messages import failure_text, verify_pruned, verify_slice
from langslice.verification.record import read_record
from langslice.verification.resume import (
    WrittenSlice,
    check_unchanged,
    file_states,
    forget,
    journal_folder,
    read_written_slice,
    save_written_slice,
    work_key,
)
from langslice.writing.shards import TensorEdit, WriteReport, check_output, output_size, staging_folder, write_shards

if TYPE_CHECKING:
    from langslice.counting import TokenCounts
    from langslice.slicing.inspect import Inspection
    from langslice.verification.main import SlicePair, Verification

# Room for slice.json, which is written last: 262,144 kept tokens with their reasons make about 30 MB.
_RECORD_BYTES = 32 << 20


@taking(InspectOptions)
def inspect(model: str | Path, *, options: InspectOptions, report: Report = silent) -> Inspection:
    """Look at a model: parameters by part, vocabulary by script, and what keeping languages would save.

    options  see InspectOptions; one set of languages, or several as several strings ("ko,en", "fr")
    Raises   CheckpointError, TokenizerError, LanguageError
    """
    from langslice.slicing.inspect import COMMON_SETS, inspect_model

    if is_gguf(model):
        from langslice.slicing.gguf import inspect_gguf

        return inspect_gguf(model, options, report)
    checkpoint = open_checkpoint(model, **options.source())
    sets = [tuple(item.strip() for item in one.split(",")) for one in listed(options.languages)]
    return inspect_model(Source(checkpoint, needs_tokenizer=bool(sets)), sets=sets or COMMON_SETS, report=report)


@taking(SourceOptions)
def model_row(model: str | Path, *, options: SourceOptions) -> str:
    """The row of a model's type, as Python: from the table of families, or derived from its class.

    options  see SourceOptions
    Raises   CheckpointError where neither has one
    """
    from langslice.model.row_text import row_text

    return row_text(open_checkpoint(model, **options.source()).config)


@taking(CountOptions, "corpus")
def count(model: str | Path, *, options: CountOptions, report: Report = silent) -> TokenCounts:
    """Count how often each of the model's tokens occurs in a corpus.

    options  see CountOptions; a corpus that a cluster counts must lie where all its machines see it
    Returns  counts that `TokenCounts.save` writes and `plan(counts=...)` reads
    Raises   CheckpointError, TokenizerError, CorpusError, LanguageError
    """
    from langslice.corpus import corpus_units
    from langslice.counting import merge_counts
    from langslice.planning.criteria import count_sides

    source = Source(open_checkpoint(model, **options.source()))
    corpus, languages = listed(options.corpus), codes(options.languages)
    if options.ray is not None:
        from langslice.counting.cluster_count import count_on_cluster

        return count_on_cluster(
            source.tokenizer, corpus, options.ray, text_field=options.text_field, languages=languages,
            model_type=source.checkpoint.config.get("model_type"), rows=source.rows,
            processes=options.processes, report=report,
        )  # fmt: skip
    read = partial(corpus_units, corpus, text_field=options.text_field, languages=languages, report=report)
    counted = count_sides(source.tokenizer, read, processes=options.processes)
    return merge_counts(counted, [1.0] * len(counted)) if len(counted) > 1 else counted[0]


@taking(PlanOptions)
def plan(model: str | Path, *, options: PlanOptions, report: Report = silent) -> SlicePlan:
    """Choose what to keep of a model, without writing anything.

    model    a local folder, or the id of a model on the hub
    options  see PlanOptions
    Returns  a plan; `plan.save(path)` writes it
    Raises   LanguageError, CorpusError, PlanError for the choice; CheckpointError, TokenizerError for the model
    """
    from langslice.planning.build import needs_tokenizer

    choice = options.choice()
    source = settled(open_checkpoint(model, **options.source()), choice, needs_tokenizer=needs_tokenizer(choice))
    return _make_plan(source, choice, report)


@taking(SliceOptions)
def slice(
    model: str | Path,
    out: str | Path,
    *,
    options: SliceOptions,
    plan: SlicePlan | str | Path | None = None,
    overwrite: bool = False,
    report: Report = silent,
) -> SliceResult:
    """Slice a model into a new folder: vocabulary, layers, heads and neurons, in one pass; and verify the result.

    model      a local folder, the id of a model on the hub, or a GGUF file, of which a GGUF file `out` is made
    out        folder to make; nothing that looks finished appears there before the work is done and verified
    options    see SliceOptions; with a plan only how the result is verified and written, carry, leave_out, revision, token and
               cache_dir. With `ray`, the calibration data of weight pruning is spread over a cluster that sees `out`
    plan       a plan or its file; without one, it is made from `options`
    overwrite  replace an existing `out`
    Raises     PlanError, OutputError, VerificationError, and what `plan` raises
    """
    if is_gguf(model):
        return _slice_gguf(model, out, options, plan=plan, overwrite=overwrite, report=report)
    out, choice, text = Path(out), options.choice(), listed(options.text)
    if plan is not None:
        refuse_beside_plan(choice)
    _check_verification(options)
    checkpoint = open_checkpoint(model, **options.source())
    folder = checkpoint.folder
    check_output(out, source=folder, overwrite=overwrite)
    source, made = _settled_plan(checkpoint, plan, choice, report)
    refuse_unproven(made, verify=options.verify, level=options.verify_level)
    _refuse_idle_cluster(options, made)
    edits = tensor_edits(made, source)
    before = file_states(checkpoint, source.files)
    pre_tokenizer = original_hash(folder, source.tokenizer)  # asked now: verification lets go of the tokenizer
    notes: list[str] = [*made.notes, *checkpoint.notes]
    level = options.verify_level if options.verify else ""
    key = None if made.weights is None else work_key(source, made, verify=level, text=text)
    resumes = None if key is None else partial(_has_cut, key)
    with staging_folder(out, source=folder, overwrite=overwrite, notice=notes.append, resumes=resumes) as staging:
        cut = None if key is None else read_written_slice(staging, key)
        if cut is None:
            cut = _write(source, made, edits, staging, options, report)
            if key is not None:
                save_written_slice(staging, key, cut)
        verification = cut.verification
        if made.weights is not None and (verification is None or verification.passed):
            made, verification = _prune(source, made, verification, staging, options.ray, notes, report)
        if verification is not None and not verification.passed:
            raise VerificationError(
                failure_text(verification, f"{out} was not written: the slice differs from its source")
            )
        return_freed_memory()
        check_unchanged(checkpoint, source.files, before)
        left_out = left_out_files(source.files, cut.rewrite, made)
        forget(staging)
        write_metadata(staging, out.name, source, made, edits, cut.rewrite, left_out, verification, pre_tokenizer)
    return SliceResult(
        out, made, part_sizes(made, edits), cut.written, left_out, verification, (*notes, *cut.written.notes)
    )


@taking(MaskOptions)
def mask(
    model: str | Path, out: str | Path, *, options: MaskOptions, overwrite: bool = False, report: Report = silent
) -> SliceResult:
    """Zero heads and neurons instead of removing them, so that every client loads the result.

    options    see MaskOptions
    Others     as for `slice`
    Raises     what `slice` raises
    """
    asked = {**options.given(), "output_style": "masked"}
    return slice(model, out, options=SliceOptions(**asked), overwrite=overwrite, report=report)


@taking(VerifyOptions)
def verify(model: str | Path, out: str | Path, *, options: VerifyOptions, report: Report = silent) -> Verification:
    """Compare a slice with the model that it was sliced from.

    out      a folder that `slice` made
    options  see VerifyOptions
    Returns  verification; `passed` is False when anything differs
    Raises   PlanError when `out` is no slice or was sliced from another source
    """
    checkpoint = open_checkpoint(model, **options.source())
    made = read_record(Path(out))
    source = settled(checkpoint, made.request, needs_tokenizer=made.names_tokens)
    check_source(made, source)
    return verify_slice(_compared(source, Path(out), made, finished=True), listed(options.text), report)


def _slice_gguf(model: str | Path, out: str | Path, options: SliceOptions, **given: Any) -> SliceResult:
    from langslice.slicing.gguf import slice_gguf_file

    return slice_gguf_file(model, out, options, **given)


def _compared(source: Source, out: Path, made: SlicePlan, *, finished: bool, quick: bool = False) -> SlicePair:
    """The two sides of a verification; of a finished slice it is more thorough than of one that was written a moment ago."""
    from langslice.verification.main import SlicePair

    remake = partial(make_again, source, made, finished=finished)
    return SlicePair(source, out, made, remake, thorough=finished, quick=quick)


def _make_plan(source: Source, choice: Choice, report: Report) -> SlicePlan:
    from langslice.planning.build import make_plan

    if choice.get("like") and is_draft(source.checkpoint.config):
        return draft_plan(source, read_record(Path(choice["like"])), choice)
    if choice.get("max_loss") is not None:
        from langslice.tradeoffs.main import plan_within_loss

        made, note = plan_within_loss(source, choice, report)
        return replace(made, notes=(note, *made.notes), request={**made.request, "max_loss": choice["max_loss"]})
    return make_plan(source, choice, report)


def _check_verification(options: SliceOptions) -> None:
    """Refuse held-out text that is not there, and a level of a verification that is not asked for."""
    if options.verify and options.text:
        find_corpora(listed(options.text))
    if not options.verify and options.verify_level != "full":
        raise PlanError("--verify-level has no effect with --no-verify", "leave out one of the two")


def _refuse_idle_cluster(options: SliceOptions, made: SlicePlan) -> None:
    if options.ray is not None and made.weights is None:
        raise PlanError(
            "--ray has no effect: no weight is pruned", hint="count on a cluster with `langslice count --ray`"
        )


def _settled_plan(
    checkpoint: Checkpoint, plan: SlicePlan | str | Path | None, choice: Choice, report: Report
) -> tuple[Source, SlicePlan]:
    """The source, and the plan that is given, or made from the choice, with what was said of files."""
    from langslice.planning.build import needs_tokenizer

    # Read before the tokenizer: the plan stays in memory, and would keep the pages around it when the tokenizer goes.
    given = load_plan(Path(plan)) if isinstance(plan, str | Path) else plan
    files = settled_files({} if given is None else given.request, choice)
    needed = needs_tokenizer(choice) if given is None else given.names_tokens
    source = settled(checkpoint, files, needs_tokenizer=needed)
    if given is None:
        made = _make_plan(source, choice, report)
    else:
        made = fitting_plan(given, source)
        check_derived(DerivedFileInputs(source, made))
    return source, replace(made, request={**made.request, **files})


def _has_cut(key: str, staging: Path) -> bool:
    return read_written_slice(staging, key) is not None


def _write(
    source: Source,
    made: SlicePlan,
    edits: Mapping[str, TensorEdit],
    staging: Path,
    options: SliceOptions,
    report: Report,
) -> WrittenSlice:
    """Write files and weights, and compare them with the source, all before weights are pruned: outputs differ after that."""
    rewrite = write_files(source, made, staging)
    return_freed_memory()
    written = _write_weights(source, made, edits, staging, link=options.link, threads=options.threads, report=report)
    verification = None
    if options.verify:
        both = _compared(source, staging, made, finished=False, quick=options.verify_level == "quick")
        verification = verify_slice(both, listed(options.text), report)
    return WrittenSlice(rewrite, written, verification)


def _write_weights(
    source: Source,
    made: SlicePlan,
    edits: Mapping[str, TensorEdit],
    staging: Path,
    *,
    link: bool,
    threads: int,
    report: Report,
) -> WriteReport:
    """Write the shards, and what else the structure asks of the folder."""
    checkpoint = source.checkpoint
    if not checkpoint.shards:
        return WriteReport((), 0, {})
    prefix = checkpoint.model_folder.relative_to(checkpoint.folder)
    written = write_shards(
        checkpoint, edits, staging / prefix, link=link and not _rewrites(made), threads=threads,
        progress=adding_up(report, "writing", output_size(checkpoint, edits)), reserve_bytes=_RECORD_BYTES,
    )  # fmt: skip
    if made.extension:
        write_extension(made, open_checkpoint(staging).tensors)
    if made.structure is not None:
        finish_structure(checkpoint, source.anatomy, made.structure, staging)
        if made.structure.rotation:
            from langslice.structure.rotation import write_turned

            found = open_checkpoint(staging).tensors
            write_turned(checkpoint, source.anatomy, made.structure, source.axes, edits, found)
    finish_draft(source, made, staging)
    return written


def _prune(
    source: Source,
    made: SlicePlan,
    verification: Verification | None,
    staging: Path,
    ray: str | None,
    notes: list[str],
    report: Report,
) -> tuple[SlicePlan, Verification | None]:
    """Zero weights of what was removed: the plan with what came of it, and verification with what is checked again."""
    done = prune_staged(staging, made.weights or {}, journal_folder(staging), ray, report)
    made = replace(made, pruned=done.to_json())
    resumed = f"continued after {done.resumed} of {len(done.layers)} blocks, which a run that was stopped had pruned"
    notes += [*done.notes, *([resumed] if done.resumed else [])]
    return made, None if verification is None else verify_pruned(verification, source, staging, made)


def _rewrites(made: SlicePlan) -> bool:
    """Whether the shards are changed once they are written, and must be files of their own."""
    return made.weights is not None or bool(made.extension) or (made.structure is not None and made.structure.rewrites)


__all__ = ["LangsliceError", "SliceResult", "count", "inspect", "mask", "model_row", "plan", "slice", "verify"]
