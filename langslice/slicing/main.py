"""The main job: open → choose → plan → slice → verify, each step a function that can be called alone.

Everything below the public functions is arithmetic of other rooms; this file only says in which order it happens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from langslice.corpus.sources import find_corpora
from langslice.errors import LangsliceError, PlanError, VerificationError
from langslice.files.memory import return_freed_memory
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.source_tokenizer import fingerprint_of, source_tokenizer, vocabulary_rows
from langslice.options import Choice, listed
from langslice.planning.derived_files import Cut as SideCut
from langslice.planning.derived_files import check_derived
from langslice.planning.plan import SlicePlan, load_plan
from langslice.planning.tensors import part_sizes, tensor_edits
from langslice.planning.validate import check_source, fitting_plan, refuse_beside_plan
from langslice.planning.weights import prune_staged
from langslice.progress import Report, adding_up, silent
from langslice.slicing.files import left_out_files, side_files, write_files, write_papers
from langslice.structure.finish import finish_structure
from langslice.tokenizer import SourceTokenizer
from langslice.verification.messages import failure_text, prove_pruned, prove_slice
from langslice.verification.record import read_record
from langslice.verification.resume import (
    Cut,
    check_unchanged,
    file_states,
    forget,
    journal_folder,
    read_cut,
    save_cut,
    work_key,
)
from langslice.writing.shards import TensorEdit, WriteReport, check_output, output_size, staging_folder, write_shards

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

if TYPE_CHECKING:
    from langslice.counting import TokenCounts
    from langslice.slicing.inspect import Inspection
    from langslice.verification.proof import Proof

# Room for slice.json, which is written last: 262,144 kept tokens with their reasons make about 30 MB.
_RECORD_BYTES = 32 << 20


@dataclass(frozen=True)
class SliceResult:
    """What `slice` made.

    out         the folder
    plan        what it did
    parameters  part -> number of parameters before and after
    written     bytes and files, by method
    left_out    file of the source -> why it is not in the output
    proof       None when verification was switched off
    notes       what else a user should know: stale partial outputs removed, weights that had to be converted first
    """

    out: Path
    plan: SlicePlan
    parameters: Mapping[str, tuple[int, int]]
    written: WriteReport
    left_out: Mapping[str, str]
    proof: Proof | None
    notes: tuple[str, ...] = ()


def inspect(
    model: str | Path,
    *,
    languages: str | Sequence[str] = (),
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    report: Report = silent,
) -> Inspection:
    """Look at a model: parameters by part, vocabulary by script, and what keeping languages would save.

    languages  one set to compute instead of the common ones; several sets as several strings ("ko,en", "fr")
    Raises     CheckpointError, TokenizerError, LanguageError
    """
    from langslice.slicing.inspect import COMMON_SETS, inspect_model

    checkpoint = open_checkpoint(model, revision=revision, token=token, cache_dir=cache_dir)
    sets = [tuple(item.strip() for item in one.split(",")) for one in listed(languages)]
    return inspect_model(checkpoint, source_tokenizer(checkpoint), sets=sets or COMMON_SETS, report=report)


def count(
    model: str | Path,
    corpus: str | Sequence[str],
    *,
    text_field: str = "text",
    languages: str | Sequence[str] = (),
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    processes: int | None = None,
    ray: str | None = None,
    report: Report = silent,
) -> TokenCounts:
    """Count how often each of the model's tokens occurs in a corpus.

    languages  keep only the lines that language identification puts in these
    ray        address of a Ray cluster that counts, or `local`; the corpus must lie where all its machines see it
    Returns    counts that `TokenCounts.save` writes and `plan(counts=...)` reads
    Raises     CheckpointError, TokenizerError, CorpusError, LanguageError
    """
    from langslice.corpus import corpus_units
    from langslice.counting import merge_counts
    from langslice.planning.build import count_sides

    checkpoint = open_checkpoint(model, revision=revision, token=token, cache_dir=cache_dir)
    if ray is not None:
        from langslice.counting.cluster_count import count_on_cluster

        return count_on_cluster(
            source_tokenizer(checkpoint), listed(corpus), ray, text_field=text_field, languages=listed(languages),
            model_type=checkpoint.config.get("model_type"), rows=vocabulary_rows(checkpoint), processes=processes, report=report,
        )  # fmt: skip
    read = partial(corpus_units, listed(corpus), text_field=text_field, languages=listed(languages), report=report)
    counted = count_sides(source_tokenizer(checkpoint), read, processes=processes)
    return merge_counts(counted, [1.0] * len(counted)) if len(counted) > 1 else counted[0]


def plan(model: str | Path, *, report: Report = silent, **choice: Unpack[Choice]) -> SlicePlan:
    """Choose what to keep of a model, without writing anything.

    model    a local folder, or the id of a model on the hub
    choice   see Choice
    Returns  a plan; `langslice.planning.plan.save_plan` writes it
    Raises   LanguageError, CorpusError, PlanError for the choice; CheckpointError, TokenizerError for the model
    """
    checkpoint = _open(model, choice)
    tokenizer = source_tokenizer(checkpoint)
    return _make_plan(checkpoint, tokenizer, choice, report)


def slice(
    model: str | Path,
    out: str | Path,
    *,
    plan: SlicePlan | str | Path | None = None,
    verify: bool = True,
    text: str | Sequence[str] = (),
    link: bool = False,
    overwrite: bool = False,
    threads: int = 2,
    ray: str | None = None,
    report: Report = silent,
    **choice: Unpack[Choice],
) -> SliceResult:
    """Slice a model into a new folder: vocabulary, layers, heads and neurons, in one pass; and prove the result.

    model      a local folder, or the id of a model on the hub
    out        folder to make; nothing that looks finished appears there before the work is done and proven
    plan       a plan or its file; without one, it is made from `choice`
    verify     compare the result with the source before it appears at `out`
    text       held-out text files for the proof
    link       hard-link untouched shards instead of copying them
    overwrite  replace an existing `out`
    ray        address of a Ray cluster that all see `out`, or `local`: demonstrations of weight pruning are spread over it
    choice     see Choice; beside a plan only carry, leave_out, revision, token and cache_dir
    Raises     PlanError, OutputError, VerificationError, and what `plan` raises
    """
    out = Path(out)
    if plan is not None:
        refuse_beside_plan(choice)
    if verify and text:
        find_corpora(listed(text))
    checkpoint = _open(model, choice)
    check_output(out, source=checkpoint.folder, overwrite=overwrite)
    made, tokenizer = _settled_plan(plan, checkpoint, choice, report)
    if ray is not None and made.weights is None:
        raise PlanError(
            "--ray has no effect: no weight is pruned", hint="count on a cluster with `langslice count --ray`"
        )
    files = side_files(checkpoint, tokenizer, made)
    edits = tensor_edits(made, checkpoint)
    check_derived(SideCut(checkpoint, tokenizer, made), files)
    before = file_states(checkpoint, files)
    notes: list[str] = [*made.notes, *checkpoint.notes]
    key = None if made.weights is None else work_key(checkpoint, made, files, verify=verify, text=listed(text))
    resumes = None if key is None else partial(_has_cut, key)
    with staging_folder(
        out, source=checkpoint.folder, overwrite=overwrite, notice=notes.append, resumes=resumes
    ) as staging:
        cut = None if key is None else read_cut(staging, key)
        rewrite = write_files(checkpoint, tokenizer, made, files, staging) if cut is None else cut.rewrite
        # The proof reads the source's tokenizer again, so that rewriting weights does not carry its vocabulary along.
        del tokenizer
        return_freed_memory()
        if cut is None:
            written = _write_weights(checkpoint, made, edits, staging, link=link, threads=threads, report=report)
            proof = None
            if verify:
                # What is cut is proven before weights are pruned: after that, outputs differ on purpose.
                proof = prove_slice(
                    checkpoint, source_tokenizer(checkpoint), staging, made, files, listed(text), report
                )
            cut = Cut(rewrite, written, proof)
            if key is not None:
                save_cut(staging, key, cut)
        proof = cut.proof
        if made.weights is not None and (proof is None or proof.passed):
            made, proof = _prune(checkpoint, made, proof, staging, ray, notes, report)
        if proof is not None and not proof.passed:
            raise VerificationError(failure_text(proof, f"{out} was not written: the slice differs from its source"))
        return_freed_memory()
        check_unchanged(checkpoint, files, before)
        left_out = left_out_files(files, rewrite, made)
        forget(staging)
        write_papers(staging, out.name, checkpoint, made, edits, rewrite, left_out, proof)
    return SliceResult(out, made, part_sizes(made, edits), cut.written, left_out, proof, (*notes, *cut.written.notes))


def verify(
    model: str | Path,
    out: str | Path,
    *,
    text: str | Sequence[str] = (),
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    report: Report = silent,
) -> Proof:
    """Compare a slice with the model that it was cut from.

    out      a folder that `slice` made
    text     held-out text files, beside the text that the plan names
    Returns  the proof; `passed` is False when anything differs
    Raises   PlanError when `out` is no slice or was cut from another source
    """
    checkpoint = open_checkpoint(model, revision=revision, token=token, cache_dir=cache_dir)
    tokenizer = source_tokenizer(checkpoint)
    made = read_record(Path(out))
    check_source(made, checkpoint, fingerprint_of(checkpoint, tokenizer))
    files = side_files(checkpoint, tokenizer, made)
    return prove_slice(checkpoint, tokenizer, Path(out), made, files, listed(text), report)


def _open(model: str | Path, choice: Choice) -> Checkpoint:
    return open_checkpoint(
        model, revision=choice.get("revision"), token=choice.get("token"), cache_dir=choice.get("cache_dir")
    )


def _make_plan(checkpoint: Checkpoint, tokenizer: SourceTokenizer, choice: Choice, report: Report) -> SlicePlan:
    from langslice.planning.build import make_plan

    return make_plan(checkpoint, tokenizer, choice, fingerprint_of(checkpoint, tokenizer), report)


def _settled_plan(
    plan: SlicePlan | str | Path | None, checkpoint: Checkpoint, choice: Choice, report: Report
) -> tuple[SlicePlan, SourceTokenizer]:
    """The plan that is given, or made from the choice, with what was said of files; and the source's tokenizer."""
    # Read before the tokenizer: the plan stays in memory, and would keep the pages around it when the tokenizer goes.
    given = load_plan(Path(plan)) if isinstance(plan, str | Path) else plan
    tokenizer = source_tokenizer(checkpoint)
    if given is None:
        made = _make_plan(checkpoint, tokenizer, choice, report)
    else:
        made = fitting_plan(given, checkpoint, tokenizer)
    return _with_settled_files(made, choice), tokenizer


def _with_settled_files(made: SlicePlan, choice: Choice) -> SlicePlan:
    """The plan with what was said of unknown files beside it, so that `verify` finds it in the record."""
    settled: dict[str, list[str]] = {}
    for name in ("carry", "leave_out"):
        patterns = dict.fromkeys([*listed(made.request.get(name)), *listed(choice.get(name))])
        if patterns:
            settled[name] = list(patterns)
    return replace(made, request={**made.request, **settled})


def _has_cut(key: str, staging: Path) -> bool:
    return read_cut(staging, key) is not None


def _write_weights(
    checkpoint: Checkpoint,
    made: SlicePlan,
    edits: Mapping[str, TensorEdit],
    staging: Path,
    *,
    link: bool,
    threads: int,
    report: Report,
) -> WriteReport:
    """Write the shards, and what else the structure asks of the folder."""
    if not checkpoint.shards:
        return WriteReport((), 0, {})
    prefix = checkpoint.model_folder.relative_to(checkpoint.folder)
    written = write_shards(
        checkpoint, edits, staging / prefix, link=link and not _rewrites(made), threads=threads,
        progress=adding_up(report, "writing", output_size(checkpoint, edits)), reserve_bytes=_RECORD_BYTES,
    )  # fmt: skip
    if made.structure is not None:
        finish_structure(checkpoint, made.structure, staging)
    return written


def _prune(
    checkpoint: Checkpoint,
    made: SlicePlan,
    proof: Proof | None,
    staging: Path,
    ray: str | None,
    notes: list[str],
    report: Report,
) -> tuple[SlicePlan, Proof | None]:
    """Zero weights of what was cut: the plan with what came of it, and the proof with what is checked again."""
    done = prune_staged(staging, made.weights or {}, journal_folder(staging), ray, report)
    made = replace(made, pruned=done.to_json())
    resumed = f"went on behind {done.resumed} of {len(done.layers)} blocks, which a run that was stopped had pruned"
    notes += [*done.notes, *([resumed] if done.resumed else [])]
    return made, None if proof is None else prove_pruned(proof, checkpoint, staging, made)


def _rewrites(made: SlicePlan) -> bool:
    """Whether zeros are written into the shards, which must then be files of their own."""
    return made.weights is not None or (made.structure is not None and made.structure.writes_zeros)


__all__ = ["Choice", "LangsliceError", "SliceResult", "count", "inspect", "plan", "slice", "verify"]
