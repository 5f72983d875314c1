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
from langslice.verification.check import Check
from langslice.verification.clients import check_clients
from langslice.verification.derived import required
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
    thorough  load the source through AutoTokenizer too, even where the slice does what the source's files say, and run
              the pipeline of sentence-transformers even where its modules see hidden states alone
    """

    source: Source
    out: Path
    plan: SlicePlan
    remake: Remake | None = None
    thorough: bool = False


def verify(both: SlicePair, texts: Texts, *, progress: Callable[[str], None] = lambda step: None) -> Verification:
    """Compare a written slice with its source.

    texts    encoded with both tokenizers; the first feed the models
    Returns  verification; what cannot be opened, or is missing, is a check that failed
    """
    checks: list[Check] = []
    comparisons: list[TextComparison] = []
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
    absent = both.source.tokenizer.kind == ABSENT
    try:
        rows = len(both.plan.new_to_old) if both.plan.keeps_vocabulary else None
        folder = sliced.model_folder
        result = (
            absent_tokenizer(folder) if absent else open_tokenizer(folder, model_type=both.plan.model_type, rows=rows)
        )
    except (TokenizerError, OSError) as error:
        return Verification(
            (*checks, Check("tokenizer", False, "the slice's tokenizer cannot be opened", (str(error),)))
        )
    progress("ids")
    checks += filter(None, [check_tokenizer(both.source.tokenizer, result, both.plan)])
    checks.append(check_ids(both.source, both.out, both.plan, result))
    samples: list[Sample] = []
    for name, read in () if absent else texts.items():
        progress(f"tokenisation of {name}")
        try:
            labels = (name, f"{name}, as target")
            for label, before, after in zip(labels, both.source.tokenizer.sides, result.sides, strict=False):
                comparison, covered = compare_tokenisation(label, before, after, both.plan, read())
                comparisons.append(comparison)
                samples += covered
        except CorpusError as error:
            # The corpus that a plan was made from may have moved since; a file that the user names now must be there.
            if name != CORPUS:
                raise
            checks.append(Check("counted corpus", None, f"not read again: {error.message}"))
    checks.append(summarise_texts(comparisons, both.source.tokenizer))
    checks += _as_called(both, sliced, result, samples, progress)
    return Verification(tuple(checks), tuple(comparisons))


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
    yield check_loading(both.source.checkpoint, sliced)
    progress("bytes")
    yield _trained("bytes") if both.plan.trained else check_bytes(both.source, sliced, both.plan, edits)
    if both.plan.pruned:
        from langslice.verification.zeros import check_zeros

        yield check_zeros(sliced, both.plan.pruned)


def _as_called(
    both: SlicePair,
    sliced: Checkpoint,
    result: SourceTokenizer,
    samples: Sequence[Sample],
    progress: Callable[[str], None],
) -> Iterator[Check]:
    """Checks of the slice at work: its prompts, its tokenizer as clients load it, its outputs."""
    checkpoint, tokenizer, plan = both.source.checkpoint, both.source.tokenizer, both.plan
    lines = [sample.text for sample in samples]
    absent = both.source.tokenizer.kind == ABSENT
    prompts = [] if absent else prompts_of(both.source, plan.request)
    if prompts:
        yield check_prompts(tokenizer, result, plan, prompts)
    if tokenizer.kind != "characters" and not absent:
        progress("the tokenizer as clients load it")
        yield check_clients(checkpoint, sliced, tokenizer, plan, lines, thorough=both.thorough)
    for one in (tokenizer, result):  # not needed from here on, and as large as many a model
        one.release()
    return_freed_memory()
    progress("model outputs")
    if plan.trained or plan.pruned:
        change = "pruned weights change them; `langslice evaluate` measures how"
        yield _trained("outputs") if plan.trained else Check("outputs", None, f"not compared: {change}")
        return
    yield required(check_outputs(checkpoint, sliced, plan, [sample.ids for sample in samples]), plan)
    if is_pipeline(checkpoint.folder) and not absent:
        # Importing sentence-transformers takes as long as running both models: not for modules that cannot be wrong.
        if not both.thorough and plan.structure is None and knows_no_vocabulary(checkpoint.folder):
            yield Check("pipeline", None, "not run: its modules see hidden states alone; `langslice verify` runs them")
            return
        progress("sentence embeddings")
        return_freed_memory()
        yield check_pipeline(checkpoint, sliced, plan, (tokenizer, result), lines)


def _trained(name: str) -> Check:
    detail = (
        "not compared: the slice was trained since; `langslice evaluate` measures how, `langslice restore` goes back"
    )
    return Check(name, None, detail)
