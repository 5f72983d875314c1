"""The proof that a slice is intact: names, shapes, ids, bytes, tokenisation and model outputs.

Every check compares the written folder with the source through a road of its own: headers are read back, the stock class is
built on the meta device and asked which keys it misses, ids are compared by the token that they name, rows byte by byte,
text by encoding it with both tokenizers, outputs by running both models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import CheckpointError, CorpusError
from langslice.files.gather_rows import sliced_shape
from langslice.model.checkpoint import Checkpoint, TensorEntry, open_checkpoint
from langslice.model.token_id_fields import find_id_fields, is_id_field
from langslice.model.transformers_classes import loading_report, model_class
from langslice.planning.plan import SlicePlan
from langslice.planning.side_files import SideFile
from langslice.planning.tensors import tensor_edits
from langslice.tokenizer import SourceTokenizer, open_tokenizer
from langslice.tokenizer.absent import ABSENT, absent_tokenizer
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.sample_texts import CORPUS
from langslice.verification.tokenization import TextProof, compare_tokenisation, summarise_texts

_SAMPLED_ROWS = 2048
_SAMPLED_BYTES = 1 << 20
# No bound: an id beyond the slice's rows is a difference to report, not a file that cannot be read.
_ANY = 1 << 62


@dataclass(frozen=True)
class Proof:
    """All checks of one slice."""

    checks: tuple[Check, ...]
    texts: tuple[TextProof, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """True when no check failed; checks that could not be made are named in `checks`."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The proof as JSON-ready data."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "texts": [{**asdict(text), "growth": text.growth} for text in self.texts],
        }


def proof_from_json(document: Mapping[str, Any]) -> Proof:
    """The proof that `to_json` gave."""
    checks = [Check(**{**check, "examples": tuple(check["examples"])}) for check in document["checks"]]
    texts = [{name: value for name, value in text.items() if name != "growth"} for text in document["texts"]]
    return Proof(tuple(checks), tuple(TextProof(**text) for text in texts))


def prove(
    checkpoint: Checkpoint,
    source: SourceTokenizer,
    out: Path,
    plan: SlicePlan,
    side_files: Sequence[SideFile],
    texts: Mapping[str, Callable[[], Iterable[str]]],
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> Proof:
    """Compare a written slice with its source.

    texts  name -> a function that reads its units; they are encoded with both tokenizers, and the first feed the models
    """
    sliced = open_checkpoint(out)
    progress("structure")
    checks = [check_tensors(checkpoint, sliced, plan), check_loading(checkpoint, sliced)]
    progress("bytes")
    checks.append(_trained("bytes") if plan.trained else check_bytes(checkpoint, sliced, plan))
    absent = source.kind == ABSENT
    result = absent_tokenizer(out) if absent else open_tokenizer(sliced.model_folder, model_type=plan.model_type)
    progress("ids")
    checks.append(check_ids(checkpoint, out, plan, side_files, source, result))
    proofs: list[TextProof] = []
    samples: list[list[int]] = []
    for name, read in () if absent else texts.items():
        progress(f"tokenisation of {name}")
        try:
            for label, before, after in zip((name, f"{name}, as target"), source.sides, result.sides, strict=False):
                proof, covered = compare_tokenisation(label, before, after, plan, read())
                proofs.append(proof)
                samples += covered
        except CorpusError as error:
            # The corpus that a plan was made from may have moved since; a file that the user names now must be there.
            if name != CORPUS:
                raise
            checks.append(Check("counted corpus", None, f"not read again: {error.message}"))
    checks.append(summarise_texts(proofs, source))
    progress("model outputs")
    if plan.pruned:
        from langslice.verification.zeros import check_zeros

        checks.append(check_zeros(sliced, plan.pruned))
    if plan.trained:
        checks.append(_trained("outputs"))
    elif plan.pruned:
        checks.append(
            Check("outputs", None, "not compared: pruned weights change them; `langslice evaluate` measures how")
        )
    else:
        checks.append(check_outputs(checkpoint, sliced, plan, samples))
    return Proof(tuple(checks), tuple(proofs))


def _trained(name: str) -> Check:
    detail = (
        "not compared: the slice was trained since; `langslice evaluate` measures how, `langslice restore` goes back"
    )
    return Check(name, None, detail)


def check_tensors(checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan) -> Check:
    """Names, dtypes and shapes on disk are what the plan says."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, edit in tensor_edits(plan, checkpoint).items():
        entry = checkpoint.tensors[name]
        if edit.action != "drop":
            expected[edit.name or name] = (entry.dtype, sliced_shape(entry.shape, edit.indices))
    found = {name: (entry.dtype, entry.shape) for name, entry in sliced.tensors.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in sorted(set(expected) | set(found))
        if expected.get(name) != found.get(name)
    ]
    return Check("tensors", not wrong, f"{len(found)} tensors, names, dtypes and shapes", tuple(wrong[:MAX_EXAMPLES]))


def check_loading(checkpoint: Checkpoint, sliced: Checkpoint) -> Check:
    """The stock class, built on the meta device, misses no key that it did not miss in the source."""
    try:
        before = loading_report(checkpoint)
    except CheckpointError as error:
        return Check("loading", None, f"not run: {error}")
    try:
        after = loading_report(sliced)
    except CheckpointError as error:
        return Check("loading", False, "the stock class takes the source and not the slice", (str(error),))
    if before is None or after is None:
        return Check("loading", None, "config.json names no class that transformers has (`architectures`)")
    wrong = [
        f"{kind}: {key}"
        for kind in ("missing", "unexpected", "mismatched")
        for key in sorted(after[kind] - before[kind])
    ]
    already = sum(len(before[kind]) for kind in before)
    note = f"; {already} keys that the source already misses or has too many" if already else ""
    detail = "no missing, unexpected or mismatched key in the stock class" + note
    return Check("loading", not wrong, detail, tuple(wrong[:MAX_EXAMPLES]))


def check_bytes(checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan) -> Check:
    """Sampled rows of every sliced tensor, and sampled stretches of every kept one, equal the source's byte for byte."""
    rng = np.random.default_rng(0)
    zeroed = _zeros(checkpoint, plan)
    wrong: list[str] = []
    compared = 0
    for name, edit in tensor_edits(plan, checkpoint).items():
        new_name = edit.name or name
        if edit.action == "drop" or new_name not in sliced.tensors:
            continue
        old, new = checkpoint.tensors[name], sliced.tensors[new_name]
        pruned = new_name in plan.pruned.get("tensors", {})
        if pruned and plan.pruned["request"].get("score") == "sparsegpt":
            continue  # its weights are updated
        if edit.action == "keep" and name not in zeroed and not pruned:
            compared += min(old.size_bytes, 2 * _SAMPLED_BYTES)
            if not _same_stretches(old, new):
                wrong.append(f"{new_name}: bytes differ")
            continue
        dim = next(iter(edit.indices), 0)
        length = new.shape[dim]
        rows = np.unique(np.concatenate([rng.integers(0, length, _SAMPLED_ROWS), [0, length - 1]]))
        taken = np.moveaxis(as_rows(new, dim)[rows], 0, dim)
        expected = _expected_rows(old, edit.indices, dim, rows, zeroed.get(name, {}))
        compared += taken.nbytes
        if pruned:  # zeros anywhere; what is not zero is the source's
            expected = np.where(taken.any(axis=-1, keepdims=True), expected, 0)
        if not np.array_equal(taken, expected):
            differing = (taken != expected).any(axis=tuple(at for at in range(taken.ndim) if at != dim))
            first = int(rows[np.flatnonzero(differing)[0]])
            source = int(edit.indices[dim][first]) if dim in edit.indices else first
            wrong.append(f"{new_name}: new row {first} is not old row {source} of {name}")
    return Check("bytes", not wrong, f"{compared / 1e6:.1f} MB of sampled rows compared", tuple(wrong[:MAX_EXAMPLES]))


def _expected_rows(
    old: TensorEntry,
    indices: Mapping[int, np.ndarray],
    dim: int,
    rows: np.ndarray,
    zeroed: Mapping[int, np.ndarray],
) -> np.ndarray:
    """What the plan makes of a tensor, at some new indices along one dimension."""
    chosen = {**indices, dim: indices[dim][rows] if dim in indices else rows}
    expected = np.array(np.moveaxis(as_rows(old, dim)[chosen.pop(dim)], 0, dim))
    for other, stay in chosen.items():
        expected = np.take(expected, stay, axis=other)
    for other, gone in zeroed.items():
        np.moveaxis(expected, other, 0)[np.isin(rows, gone) if other == dim else gone] = 0
    return expected


def _zeros(checkpoint: Checkpoint, plan: SlicePlan) -> Mapping[str, Mapping[int, np.ndarray]]:
    """Where the slice holds zeros, by old name; nothing for most slices."""
    if plan.structure is None or not plan.structure.writes_zeros:
        return {}
    from langslice.model.anatomy import read_anatomy
    from langslice.structure.edits import zeros

    shapes = checkpoint.shapes
    return zeros(read_anatomy(checkpoint), plan.structure, shapes)


def as_rows(entry: TensorEntry, dim: int) -> np.ndarray:
    """A read-only view of a tensor with dimension `dim` first, elements as raw bytes."""
    elements = int(np.prod(entry.shape, dtype=np.int64))
    item = entry.size_bytes // max(elements, 1)
    table = np.memmap(entry.path, dtype=np.uint8, mode="r", offset=entry.start, shape=(*entry.shape, item))
    return np.moveaxis(table, dim, 0)


def _same_stretches(old: TensorEntry, new: TensorEntry) -> bool:
    if old.size_bytes != new.size_bytes:
        return False
    length = min(_SAMPLED_BYTES, old.size_bytes)
    offsets = {0, old.size_bytes - length}
    with old.path.open("rb") as left, new.path.open("rb") as right:
        return all(
            os.pread(left.fileno(), length, old.start + offset) == os.pread(right.fileno(), length, new.start + offset)
            for offset in offsets
        )


def check_ids(
    checkpoint: Checkpoint,
    out: Path,
    plan: SlicePlan,
    side_files: Sequence[SideFile],
    source: SourceTokenizer,
    result: SourceTokenizer,
) -> Check:
    """Every configuration field names the same token as before, in the new numbering."""
    import json

    wrong: list[str] = []
    count = 0
    ignore = frozenset(plan.ignore_fields)
    for file in side_files:
        if file.action != "renumber":
            continue
        documents = [
            json.loads((folder / file.name).read_text(encoding="utf-8")) for folder in (checkpoint.folder, out)
        ]
        before, after = (
            {
                (f.path, at): old
                for f in find_id_fields(doc, file=file.name, rows=rows, ignore=ignore)
                for at, old in enumerate(f.ids)
            }
            for doc, rows in zip(documents, (plan.rows, _ANY), strict=True)
        )
        implied = plan.implied_ids.get(file.name, {})
        for place in sorted(set(after) - set(before)):
            if ".".join(place[0]) not in implied:
                wrong.append(f"{file.name}: {'.'.join(place[0])} = {after[place]} is not in the source")
        for dotted, value in implied.items():
            path = tuple(dotted.split("."))
            if is_id_field(path[-1]):
                ids = [value] if isinstance(value, int) else value
                before.update({(path, at): old for at, old in enumerate(old for old in ids if old >= 0)})
        for place, old in before.items():
            count += 1
            new = after.get(place, -1)
            if not 0 <= new < plan.kept.shape[0] or int(plan.kept[new]) != old:
                wrong.append(f"{file.name}: {'.'.join(place[0])}: old id {old} became {new}")
            elif _token(source, old) != _token(result, new):
                wrong.append(
                    f"{file.name}: {'.'.join(place[0])}: {_token(source, old)!r} became {_token(result, new)!r}"
                )
    moved = [
        f"tokenizer: new id {new} is {_token(result, new)!r}, expected {_token(source, int(old))!r}"
        for new, old in enumerate(plan.kept.tolist())
        if _token(source, int(old)) != _token(result, new)
    ]
    tokens = "no tokenizer" if source.kind == ABSENT else f"{plan.kept.shape[0]} tokens of the tokenizer"
    detail = f"{count} ids in configuration files, {tokens}"
    return Check("ids", not wrong and not moved, detail, tuple((wrong + moved)[:MAX_EXAMPLES]))


def _token(tokenizer: SourceTokenizer, token_id: int) -> str | None:
    return tokenizer.tokens[token_id] if token_id < len(tokenizer.tokens) else None


def check_outputs(checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan, samples: Sequence[list[int]]) -> Check:
    """Both models on the same tokens: hidden states equal, logits of kept tokens equal within float rounding."""
    from langslice.verification.outputs import compare_outputs

    size = sum(tensor.size_bytes for tensor in checkpoint.tensors.values())
    if plan.structure is not None:  # compared in float32, and the source is masked in memory
        size = 8 * sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
    available = _available_memory()
    if available is not None and 1.3 * size > available:
        return Check(
            "outputs",
            None,
            f"not run: needs about {1.3 * size / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB available",
        )
    if model_class(checkpoint.model_folder) is None:
        return Check("outputs", None, "config.json names no class that transformers has (`architectures`)")
    return compare_outputs(checkpoint, sliced, plan, samples)


def _available_memory() -> int | None:
    """Bytes of memory that the kernel says can be used without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
