"""GGUF files in the commands: what of a job's options they take, and the result in the words of any slice."""

from __future__ import annotations

import tempfile
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from langslice.corpus.sources import find_corpora
from langslice.errors import LanguageError, PlanError
from langslice.formats.gguf_in.container import GgufSource, read_gguf
from langslice.formats.gguf_in.main import PARTS, TOKENS, opened_tokenizer, part_of, slice_gguf
from langslice.formats.gguf_in.metadata import vocabulary_size
from langslice.formats.gguf_in.parts import family_of, layer_count
from langslice.options import flag_of, listed
from langslice.planning.build import make_plan
from langslice.planning.plan import SlicePlan
from langslice.progress import Report, silent
from langslice.slicing.inspect import COMMON_SETS, Inspection, ModelPart, Saving
from langslice.slicing.options import InspectOptions, SliceOptions
from langslice.slicing.result import SliceResult
from langslice.verification.main import Verification
from langslice.writing.shards import WriteReport

if TYPE_CHECKING:
    from langslice.planning.source import Source

_HINT = "slice the model that the file was made from, and `langslice export` the slice"


def slice_gguf_file(
    model: str | Path, out: str | Path, options: SliceOptions, *, plan: SlicePlan | str | Path | None = None,
    overwrite: bool = False, report: Report = silent,
) -> SliceResult:  # fmt: skip
    """See `langslice.slice`. Raises PlanError for an option that GGUF files do not take."""
    given = options.given()
    if plan is not None:
        raise PlanError("--plan: a GGUF file is sliced by options, not by a plan", _HINT)
    for name in given:
        if name not in (*TOKENS, *PARTS, "verify", "text"):
            raise PlanError(f"{flag_of(SliceOptions, name)} is not for GGUF files", _HINT)
    if options.verify and listed(options.text):
        find_corpora(listed(options.text))
    done = slice_gguf(
        model,
        out,
        options.choice(),
        verify=options.verify,
        text=listed(options.text),
        overwrite=overwrite,
        report=report,
    )
    written = WriteReport((done.out.name,), done.size_bytes, done.methods)
    verification = Verification(done.checks) if options.verify else None
    return SliceResult(done.out, done.plan, done.parameters, written, done.left_out, verification, done.notes)


def inspect_gguf(model: str | Path, options: InspectOptions, report: Report) -> Inspection:
    """See `langslice.inspect`."""
    from langslice.vocabulary.scripts import token_scripts

    source = read_gguf(model)
    family_of(source)
    sets = [tuple(item.strip() for item in one.split(",")) for one in listed(options.languages)] or COMMON_SETS
    kinds = Counter(tensor.kind_name for tensor in source.tensors.values())
    notes = [f"stored as {', '.join(f'{kind} ({number})' for kind, number in kinds.most_common())}"]
    notes.append(f"{layer_count(source)} layers")
    with tempfile.TemporaryDirectory(prefix="langslice-gguf-") as folder:
        opened = opened_tokenizer(source, Path(folder))
        report("reading the vocabulary", 0, 0)
        scripts = token_scripts(opened.tokenizer)
        savings = []
        for number, languages in enumerate(sets):
            report(f"what {'+'.join(languages)} would save", number, len(sets))
            try:
                savings.append(_saving(source, opened, tuple(languages)))
            except LanguageError as error:
                notes.append(f"{'+'.join(languages)}: {error.message}")
        kind = opened.tokenizer.kind
    parts = _parts(source)
    return Inspection(
        model=str(model), model_type=source.architecture, architectures=(f"GGUF, {source.architecture}",),
        parameters=sum(part.parameters for part in parts), size_bytes=source.size_bytes, parts=parts,
        rows=vocabulary_size(source), tokens=vocabulary_size(source), tokenizer=kind,
        scripts=dict(scripts.by_script().most_common()), kinds=dict(scripts.by_kind().most_common()),
        savings=tuple(savings), units=(), left_out={}, notes=tuple(notes),
    )  # fmt: skip


def _parts(source: GgufSource) -> tuple[ModelPart, ...]:
    found: dict[str, list[int]] = {}
    for tensor in source.tensors.values():
        entry = found.setdefault(part_of(tensor.name), [0, 0, 0])
        for at, number in enumerate((1, prod(tensor.shape), tensor.size_bytes)):
            entry[at] += number
    return tuple(ModelPart(name, *numbers) for name, numbers in sorted(found.items(), key=lambda item: -item[1][1]))


def _saving(source: GgufSource, opened: Source, languages: tuple[str, ...]) -> Saving:
    """What is left with the tokens of some languages, by the choice that `slice` makes; the header goes by its tokens."""
    rows, kept = vocabulary_size(source), len(make_plan(opened, {"languages": languages}, silent).kept)
    along = [tensor for tensor in source.tensors.values() if part_of(tensor.name) in ("embedding", "output head")]
    parameters = sum(prod(tensor.shape) for tensor in source.tensors.values())
    gone = sum(prod(tensor.shape) // rows for tensor in along) * (rows - kept)
    freed = sum(tensor.size_bytes // rows for tensor in along) * (rows - kept)
    return Saving(
        languages, kept, parameters - gone, source.size_bytes - freed - len(source.raw) * (rows - kept) // rows
    )
