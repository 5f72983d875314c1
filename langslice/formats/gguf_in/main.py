"""A GGUF file in, a smaller one out: read → choose → cut → compare, each byte of a row that stays carried as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import OutputError, VerificationError
from langslice.files.atomic_output import refuse_existing, staging_file
from langslice.formats.gguf_in.check import CutPair, check_cut
from langslice.formats.gguf_in.container import GgufSource, is_gguf, read_gguf
from langslice.formats.gguf_in.metadata import cut_metadata, vocabulary_size
from langslice.formats.gguf_in.parts import TensorCut, cut_tensors, family_of
from langslice.formats.gguf_in.tokenizer import PREFIX, write_tokenizer_files
from langslice.formats.gguf_in.write import write_cut
from langslice.formats.job import comparison_texts
from langslice.model.checkpoint import open_checkpoint
from langslice.options import Choice, asks
from langslice.planning.build import make_plan
from langslice.planning.plan import SlicePlan
from langslice.planning.size_limit import WeightSizes, rows_within
from langslice.planning.source import Source
from langslice.progress import Report, adding_up, silent
from langslice.tokenizer.bpe import merges_to_keep
from langslice.verification.check import Check

# What can be asked of a GGUF file.
PARTS = ("layers", "drop_layers", "first_layers", "every_layer", "drop_heads", "drop_neurons")
TOKENS = (
    "languages", "corpus", "counts", "lexicon", "scripts", "drop_scripts", "coverage", "min_count", "max_vocab", "top_k",
    "keep_tokens", "keep_code", "language_id", "only_tokens", "keep_text", "keep_all_language_codes", "drop_reserved",
    "max_size", "text_field", "processes",
)  # fmt: skip
# What a result says of itself takes: for each token its old id; and names, versions, and what tensors are padded by.
_OWN_ROW_BYTES, _OWN_BYTES = 4, 1024
_PARTS = {"embedding": ("token_embd.",), "output head": ("output.",)}


@dataclass(frozen=True)
class CutGguf:
    """What was made of a GGUF file.

    out         the file
    plan        tokens that are kept, and why; of all tokens where none went
    parameters  part -> numbers before and after
    size_bytes  of the file
    methods     "gather" and "copy" -> bytes of tensors
    left_out    key of the metadata -> why it is not in the result
    checks      empty where it was not verified
    """

    out: Path
    plan: SlicePlan
    parameters: Mapping[str, tuple[int, int]]
    size_bytes: int
    methods: Mapping[str, int]
    left_out: Mapping[str, str]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


def slice_gguf(
    path: str | Path, out: str | Path, choice: Choice, *, verify: bool = True, text: tuple[str, ...] = (),
    overwrite: bool = False, report: Report = silent,
) -> CutGguf:  # fmt: skip
    """Cut the vocabulary, layers, heads and neurons of a GGUF file into a new one, and compare the two.

    path    a GGUF file, which stays as it is
    out     file to make; it appears when it is written and compared
    choice  entries of TOKENS and PARTS
    text    held-out files of the user
    Raises  CheckpointError for a file that is not understood, PlanError, OutputError, VerificationError where the two differ
    """
    source, out = read_gguf(path), Path(out).expanduser()
    _check_out(source, out, overwrite)
    family = family_of(source)
    with tempfile.TemporaryDirectory(prefix="langslice-gguf-") as folder:
        made, merges = _choose_tokens(source, Path(folder), choice, report)
    rows = None if made.keeps_vocabulary else made.kept
    kept, cuts = cut_tensors(source, family, choice, rows)
    kept = replace(kept, merges=merges)
    values, left_out = cut_metadata(source, kept)
    with staging_file(out) as staging:
        total = sum(cut.size_bytes for cut in cuts)
        methods = write_cut(source, values, cuts, staging, adding_up(report, "writing", total))
        checks: list[Check] = []
        if verify:
            report("verifying", 0, 0)
            pair = CutPair(source, read_gguf(staging), kept, cuts, family.encoder, _plain_token(made))
            checks = check_cut(pair, comparison_texts(made.request, text))
            _refuse_differing(out, checks)
        size = staging.stat().st_size
    made = replace(made, structure=kept.structure)
    return CutGguf(out, made, _parameters(source, cuts), size, methods, left_out, tuple(checks), made.notes)


def _check_out(source: GgufSource, out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise OutputError(f"{out} is a folder", "of a GGUF file a file is made: name one, such as out.gguf")
    if out.exists() and out.samefile(source.path):
        raise OutputError(f"{out} is the source itself", "choose another name")
    refuse_existing(out, overwrite)
    if out.exists() and not is_gguf(out):
        raise OutputError(
            f"{out} exists and is not a GGUF file", "--overwrite replaces earlier outputs only; choose another name"
        )


def _choose_tokens(source: GgufSource, folder: Path, choice: Choice, report: Report) -> tuple[SlicePlan, list[bytes]]:
    """The tokens that stay, chosen as those of any tokenizer; and the merges among them.

    folder  empty; takes the tokenizer's files
    """
    wished = {name: value for name, value in choice.items() if name in TOKENS}
    if asks(choice, PARTS) and not asks(wished, TOKENS):
        return _all_tokens(source), []
    if wished.get("max_size") is not None:
        wished = _within_size(source, wished)
    opened = opened_tokenizer(source, folder)
    made = replace(make_plan(opened, wished, report), rows=vocabulary_size(source))
    document = opened.tokenizer.document
    if document is None or document.merges is None or f"{PREFIX}merges" not in source.entries:
        return made, []
    marked = merges_to_keep(document.merges, made.kept.tolist(), len(document.tokens))
    sides = zip(document.merges.left[marked].tolist(), document.merges.right[marked].tolist(), strict=True)
    return made, [f"{document.tokens[left]} {document.tokens[right]}".encode() for left, right in sides]


def opened_tokenizer(source: GgufSource, folder: Path) -> Source:
    """The tokenizer of a GGUF file as a source that tokens are chosen of.

    folder  empty; takes the tokenizer's files, and is needed as long as the source
    """
    write_tokenizer_files(source, folder)
    return Source(replace(open_checkpoint(folder), model_id=str(source.path)))


def _all_tokens(source: GgufSource) -> SlicePlan:
    """The plan of a job that leaves all tokens as they are."""
    rows = vocabulary_size(source)
    return SlicePlan(
        model=str(source.path), revision=None, model_type=source.architecture, fingerprint="", rows=rows, tensors={},
        kept=np.arange(rows, dtype=np.int64), tokens=tuple(source.value(f"{PREFIX}tokens")),
        reasons=("whole vocabulary",) * rows,
    )  # fmt: skip


def _within_size(source: GgufSource, wished: Choice) -> dict[str, Any]:
    """A limit on the file as one on the tokens: everything else is taken to stay, the header at its size."""
    along = {name: tensor for name, tensor in source.tensors.items() if tensor.shape[0] == vocabulary_size(source)}
    per_row = _OWN_ROW_BYTES + sum(prod(tensor.blocks[1:]) * tensor.block_bytes for tensor in along.values())
    fixed = source.size_bytes - sum(tensor.size_bytes for tensor in along.values()) + _OWN_BYTES
    fitting = rows_within(wished["max_size"], WeightSizes(fixed, per_row), without_token=0, multiple=None)
    rest = {name: value for name, value in wished.items() if name != "max_size"}
    return {**rest, "max_vocab": min(fitting, wished.get("max_vocab") or fitting)}


def _plain_token(made: SlicePlan) -> int:
    """A kept token that is whole characters: llama.cpp answers with nothing else of a text."""
    plain = (old for old, token in zip(made.kept.tolist(), made.tokens, strict=True) if token in ("1", "▁1", "a", "▁a"))
    return next(plain, int(made.kept[-1]))


def _parameters(source: GgufSource, cuts: Collection[TensorCut]) -> dict[str, tuple[int, int]]:
    """Part -> numbers before and after."""
    found: dict[str, list[int]] = {}
    for tensor in source.tensors.values():
        found.setdefault(part_of(tensor.name), [0, 0])[0] += prod(tensor.shape)
    for cut in cuts:
        found[part_of(cut.source.name)][1] += prod(cut.shape)
    return {part: (before, after) for part, (before, after) in found.items()}


def part_of(name: str) -> str:
    """What a tensor belongs to, by its name."""
    for part, beginnings in _PARTS.items():
        if name.startswith(beginnings):
            return part
    return "attention" if ".attn" in name else "feed-forward" if ".ffn" in name else "other"


def _refuse_differing(out: Path, checks: Collection[Check]) -> None:
    failed = [check for check in checks if check.passed is False]
    if failed:
        told = ["\n    ".join([f"  {check.name}: {check.detail}", *check.examples[:3]]) for check in failed]
        raise VerificationError("\n".join([f"{out} was not written: it differs from its source", *told]))
