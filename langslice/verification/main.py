"""Verification that a slice is intact: files, names, shapes, ids, bytes, tokenisation, model outputs, and as clients load it.

Every check compares the written folder with the source by means of its own: files other than the weights are made again,
headers are read back, the unmodified class is built on the meta device and asked which keys it misses, ids are compared by the
token that they name, rows byte by byte, text by encoding it with both tokenizers, outputs by running both models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langslice.errors import CorpusError, LangsliceError, TokenizerError
from langslice.files.memory import return_freed_memory
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.planning.tensors import tensor_edits
from langslice.tokenizer import SourceTokenizer, open_tokenizer
from langslice.tokenizer.absent import ABSENT, absent_tokenizer
from langslice.verification.check import LEFT_FOR_LATER, Check
from langslice.verification.clients import Stated, check_clients, state
from langslice.verification.derived import required
from langslice.verification.drafts import check_draft_map, no_class
from langslice.verification.ids import check_ids
from langslice.verification.outputs import check_outputs
from langslice.verification.sample_texts import CORPUS, prompts_of
from langslice.verification.sentence_pipeline import check_pipeline, is_pipeline, knows_no_vocabulary
from langslice.verification.side_files import Remake, check_files
from langslice.verification.tensors import check_bytes, check_loading, check_tensors
from langslice.verification.tokenization import (
    Sample,
    TextComparison,
    check_prompts,
    compare_tokenisation,
    summarise_texts,
)
from langslice.verification.tokenizer_parts import check_tokenizer
from langslice.writing.shards import INDEX_NAME

Texts = Mapping[str, Callable[[], Iterable[str]]]
"""Name of a text -> a function that reads its units."""


@dataclass(frozen=True)
class Verification:
    """All checks of one slice."""

    checks: tuple[Check, ...]
    texts: tuple[TextComparison, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """True when no check failed; checks that could not be made are named in `checks`."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Verification as JSON-ready data."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "texts": [{**asdict(text), "growth": text.growth} for text in self.texts],
        }


def verification_from_json(document: Mapping[str, Any]) -> Verification:
    """Verification that `to_json` gave."""
    checks = [Check(**{**check, "examples": tuple(check["examples"])}) for check in document["checks"]]
    texts = [{name: value for name, value in text.items() if name != "growth"} for text in document["texts"]]
    return Verification(tuple(checks), tuple(TextComparison(**text) for text in texts))


@dataclass(frozen=True)
class SlicePair:
    """The two sides of a verification: the source, the slice in `out`, and the plan that leads from one to the other.

    remake    makes the slice's files next to its weights again; None where they are not the slice's to compare
    quick     compare files, tensors, bytes, ids and tokenisation alone: no model and no transformers is loaded
    thorough  load the source through AutoTokenizer too, even where the slice does what the source's files say, and run
              the pipeline of sentence-transformers even where its modules see hidden states alone
    """

    source: Source
    out: Path
    plan: SlicePlan
    remake: Remake | None = None
    thorough: bool = False
    quick: bool = False


def verify(both: SlicePair, texts: Texts, *, progress: Callable[[str], None] = lambda step: None) -> Verification:
    """Compare a written slice with its source.

    texts    encoded with both tokenizers; the first feed the models
    Returns  verification; what cannot be opened, or is missing, is a check that failed
    """
    checks: list[Check] = []
    try:
        sliced = open_checkpoint(both.out)
    except (LangsliceError, OSError) as error:
        sliced, fault = None, str(error)
    if both.remake is not None:
        progress("files")
        checks.append(check_files(both.out, both.remake, _weights(both.out, sliced)))
    if sliced is None:
        return Verification((*checks, Check("tensors", False, "the slice cannot be opened", (fault,))))
    checks += _of_tensors(both, sliced, progress)
    # What choosing worked out of the tokenizer is not needed to compare it, and takes as much memory as its document.
    both.source.tokenizer.forget()
    return_freed_memory()
    read = _of_tokenizer(both, sliced, texts, progress)
    checks += read.checks
    # Neither tokenizer is needed from here on, and together they are as large as many a model.
    both.source.release_tokenizer()
    return_freed_memory()
    if both.quick:
        return Verification((*checks, *_left_for_later(both, read)), tuple(read.comparisons))
    # Before any model's class is imported, which takes another hundred megabytes.
    if read.stated is not None:
        progress("the tokenizer as clients load it")
        checks.append(check_clients(both.source.checkpoint, sliced, read.stated, both.plan))
        return_freed_memory()
    progress("loading")
    checks.append(no_class(both.source.checkpoint, "loading") or check_loading(both.source.checkpoint, sliced))
    if read.opens:
        checks += _as_called(both, sliced, read, progress)
    return Verification(tuple(checks), tuple(read.comparisons))


def _left_for_later(both: SlicePair, read: _Read) -> Iterator[Check]:
    """The checks that load a model or transformers, as not made."""
    pipeline = ("pipeline",) if is_pipeline(both.source.checkpoint.folder) else ()
    names = (*(("clients",) if read.stated is not None else ()), "loading", "outputs", *pipeline)
    for name in names if read.opens else ():
        yield Check(name, None, LEFT_FOR_LATER)


def _weights(out: Path, sliced: Checkpoint | None) -> set[str]:
    """Names below a slice's folder of the files that hold its tensors; of all that may, where it cannot be opened."""
    if sliced is None:
        return {path.relative_to(out).as_posix() for path in out.rglob("*.safetensors*")}
    folder = sliced.model_folder.relative_to(sliced.folder)
    names = [shard.name for shard in sliced.shards]
    names += [INDEX_NAME] if sliced.index_metadata or len(names) > 1 else []
    return {(folder / name).as_posix() for name in names}


def _of_tensors(both: SlicePair, sliced: Checkpoint, progress: Callable[[str], None]) -> Iterator[Check]:
    """Checks of the weights as they lie on disk."""
    progress("structure")
    edits = tensor_edits(both.plan, both.source)
    yield check_tensors(both.source, sliced, edits)
    progress("bytes")
    yield _trained("bytes") if both.plan.trained else check_bytes(both.source, sliced, both.plan, edits)
    mapped = check_draft_map(both.source, sliced, both.plan)
    if mapped is not None:
        yield mapped
    if both.plan.pruned:
        from langslice.verification.zeros import check_zeros

        yield check_zeros(sliced, both.plan.pruned)


@dataclass
class _Read:
    """What came of both tokenizers, which are read together and then freed.

    opens    whether the slice's tokenizer can be opened; nothing else is filled in where it cannot
    samples  lines that use kept tokens only
    extended  the same, with new tokens among them
    stated   what the source's files say of its tokenizer; None where AutoTokenizer is not asked
    files    names of the tokenizer files of source and slice; empty for a source without a tokenizer
    """

    checks: list[Check] = field(default_factory=list)
    comparisons: list[TextComparison] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    extended: list[Sample] = field(default_factory=list)
    stated: Stated | None = None
    opens: bool = True
    files: tuple[Sequence[str], Sequence[str]] = ((), ())

    @property
    def lines(self) -> list[str]:
        """The samples' text."""
        return [sample.text for sample in self.samples]


def _of_tokenizer(both: SlicePair, sliced: Checkpoint, texts: Texts, progress: Callable[[str], None]) -> _Read:
    """Checks of the slice's tokenizer that need no model and no transformers."""
    read, source, plan = _Read(), both.source.tokenizer, both.plan
    absent = source.kind == ABSENT
    try:
        result = _slice_tokenizer(both, sliced)
    except (TokenizerError, OSError) as error:
        fault = Check("tokenizer", False, "the slice's tokenizer cannot be opened", (str(error),))
        return _Read([fault], opens=False)
    progress("ids")
    read.checks += filter(None, [check_tokenizer(source, result, plan)])
    read.checks.append(check_ids(both.source, both.out, plan, result))
    for name, units in () if absent else texts.items():
        progress(f"tokenisation of {name}")
        try:
            labels = (name, f"{name}, as target")
            for label, before, after in zip(labels, source.sides, result.sides, strict=False):
                comparison, covered = compare_tokenisation(label, before, after, plan, units())
                read.comparisons.append(comparison)
                read.samples += [sample for sample in covered if not sample.extended]
                read.extended += [sample for sample in covered if sample.extended]
        except CorpusError as error:
            # The corpus that a plan was made from may have moved since; a file that the user names now must be there.
            if name != CORPUS:
                raise
            read.checks.append(Check("counted corpus", None, f"not read again: {error.message}"))
    read.checks.append(summarise_texts(read.comparisons, source))
    prompts = [] if absent else prompts_of(both.source, plan.request)
    if prompts:
        read.checks.append(check_prompts(source, result, plan, prompts))
    if source.kind != "characters" and not absent:
        extended = {sample.text: sample.ids for sample in read.extended}
        read.stated = state(source, plan, read.lines, both.source.templates, extended, thorough=both.thorough)
    read.files = ((), ()) if absent else (source.files, result.files)
    result.release()
    return read


def _slice_tokenizer(both: SlicePair, sliced: Checkpoint) -> SourceTokenizer:
    """The slice's tokenizer, opened as its source's was."""
    if both.source.tokenizer.kind == ABSENT:
        return absent_tokenizer(sliced.model_folder)
    rows = len(both.plan.new_to_old) if both.plan.keeps_vocabulary else None
    return open_tokenizer(sliced.model_folder, model_type=both.plan.model_type, rows=rows)


def _as_called(both: SlicePair, sliced: Checkpoint, read: _Read, progress: Callable[[str], None]) -> Iterator[Check]:
    """Checks of the slice at work: its outputs and its pipeline."""
    checkpoint, plan = both.source.checkpoint, both.plan
    progress("model outputs")
    if plan.trained or plan.pruned:
        change = "pruned weights change them; `langslice evaluate` measures how"
        yield _trained("outputs") if plan.trained else Check("outputs", None, f"not compared: {change}")
        return
    unrun = no_class(checkpoint, "outputs")
    if unrun is not None:
        yield unrun
        return
    yield required(check_outputs(checkpoint, sliced, plan, [sample.ids for sample in read.samples]), plan)
    if is_pipeline(checkpoint.folder) and any(read.files):
        # Importing sentence-transformers takes as long as running both models: not for modules that cannot be wrong.
        if not both.thorough and plan.structure is None and knows_no_vocabulary(checkpoint.folder):
            yield Check("pipeline", None, "not run: its modules see hidden states alone; `langslice verify` runs them")
            return
        progress("sentence embeddings")
        return_freed_memory()
        yield check_pipeline(checkpoint, sliced, plan, read.files, read.lines)


def _trained(name: str) -> Check:
    detail = (
        "not compared: the slice was trained since; `langslice evaluate` measures how, `langslice restore` goes back"
    )
    return Check(name, None, detail)
