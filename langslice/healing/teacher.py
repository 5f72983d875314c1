"""The model that a slice is distilled from: whether it is the right one, and how its rows and layers map to the slice's.

The teacher reads the slice's own tokens, each by its old id, so that both see the same positions; of its logits only the kept
rows count. A layer of the slice is compared with the teacher at what the layer reads: for a layer whose predecessors were
dropped, that is what these would have handed on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import CheckpointError, HealError, LangsliceError
from langslice.files.hashing import file_sha256
from langslice.files.safetensors_header import parse_strict_json
from langslice.healing.student import HealedFolder, load_student
from langslice.model.axes import find_vocabulary_size
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.families import family_of
from langslice.model.source_tokenizer import fingerprint
from langslice.planning.plan import SlicePlan
from langslice.tokenizer import SourceTokenizer, open_tokenizer
from langslice.verification.file_names import FILE_NAME

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mapped:
    """A teacher that suits a slice.

    rows    (student rows,) int64: the teacher's row of each of the slice's
    kept    leading rows that are tokens; those after are padding, and never compared
    layers  stack -> the teacher's layer for each of the slice's; a stack that is not named is whole
    digest  content of the teacher, for what is remembered of it
    """

    checkpoint: Checkpoint
    rows: Rows
    kept: int
    layers: Mapping[str, tuple[int, ...]]
    digest: str


def find_teacher(source: HealedFolder, model: str, *, any_teacher: bool) -> Mapped:
    """Open a teacher, and check that it is the model that the slice was made from.

    any_teacher  it need not be: the same vocabulary is enough
    Raises       HealError for a wrong one
    """
    checkpoint = open_checkpoint(model)
    tokenizer = _tokenizer(checkpoint)
    digest = content_digest(checkpoint, tokenizer)
    if source.plan is None:
        rows = _equal_vocabularies(source, checkpoint, tokenizer)
        return Mapped(checkpoint, rows, rows.size, {}, digest)
    plan = source.plan
    if plan.extension:
        raise HealError(
            f"the slice has {len(plan.extension):,} new tokens, which its teacher does not know",
            "leave --teacher out: it is trained on the text alone",
        )
    if not any_teacher:
        _check_origin(source, plan, checkpoint, tokenizer)
    found = find_vocabulary_size(family_of(checkpoint.config), checkpoint.shapes)
    if found != plan.rows or not _same_tokens(plan.tokens, plan.kept, tokenizer):
        raise HealError(
            f"wrong teacher: {model} has another vocabulary than the model that the slice was made from\n"
            f"  expected {plan.rows:,} rows with the plan's tokens, found {found:,}",
            "tokens of both must be the same; distil from the model that was sliced",
        )
    layers = {} if plan.structure is None else {stack: tuple(kept) for stack, kept in plan.structure.layers.items()}
    return Mapped(checkpoint, plan.new_to_old, int(plan.kept.size), layers, digest)


def _tokenizer(checkpoint: Checkpoint) -> SourceTokenizer:
    rows = find_vocabulary_size(family_of(checkpoint.config), checkpoint.shapes)
    return open_tokenizer(checkpoint.model_folder, model_type=checkpoint.config.get("model_type"), rows=rows)


def _check_origin(source: HealedFolder, plan: SlicePlan, checkpoint: Checkpoint, tokenizer: SourceTokenizer) -> None:
    """Compare with what slice.json says of the source: config, tensors, tokenizer, and the weights where it hashed them."""
    found = fingerprint(checkpoint, [tokenizer.folder / name for name in tokenizer.files])
    hint = "pass the model that was sliced, or --any-teacher to distil from another one with the same vocabulary"
    if found != plan.fingerprint:
        raise HealError(
            f"wrong teacher: the slice was made from {plan.model}\n"
            f"  fingerprint in slice.json {plan.fingerprint[:16]}, of {checkpoint.model_id} {found[:16]}",
            hint,
        )
    record = parse_strict_json((source.folder / FILE_NAME).read_bytes())
    files = record.get("source", {}).get("files", {})
    for shard in checkpoint.shards:
        expected = files.get(shard.name, {}).get("sha256")
        if expected is not None and file_sha256(shard.path) != expected:
            raise HealError(
                f"wrong teacher: {shard.name} of {checkpoint.model_id} holds other weights than when the slice was made",
                hint,
            )


def _same_tokens(tokens: tuple[str | None, ...], kept: Rows, tokenizer: SourceTokenizer) -> bool:
    size = len(tokenizer.tokens)
    return all(
        token == (tokenizer.tokens[old] if old < size else None)
        for token, old in zip(tokens, kept.tolist(), strict=True)
    )


def _equal_vocabularies(source: HealedFolder, checkpoint: Checkpoint, tokenizer: SourceTokenizer) -> Rows:
    own = _tokenizer(source.checkpoint)
    rows = find_vocabulary_size(family_of(source.checkpoint.config), source.checkpoint.shapes)
    theirs = find_vocabulary_size(family_of(checkpoint.config), checkpoint.shapes)
    if rows != theirs or own.tokens != tokenizer.tokens:
        raise HealError(
            f"{source.folder} has no slice.json, and its vocabulary is not that of {checkpoint.model_id}\n"
            f"  {rows:,} rows against {theirs:,}",
            "a teacher with another vocabulary needs the slice's map; heal on text alone, or slice again",
        )
    return np.arange(rows, dtype=np.int64)


def content_digest(checkpoint: Checkpoint, tokenizer: SourceTokenizer | None = None) -> str:
    """sha256 over config, tensors, weight files and tokenizer files."""
    import hashlib

    files = [] if tokenizer is None else [tokenizer.folder / name for name in tokenizer.files]
    found = hashlib.sha256(fingerprint(checkpoint, files).encode())
    for shard in checkpoint.shards:
        found.update(file_sha256(shard.path).encode())
    return found.hexdigest()


class Teacher:
    """A teacher in memory, asked for its logits over the kept rows.

    streamed  one layer in memory at a time, over a map of its files; otherwise the whole model
    """

    def __init__(self, mapped: Mapped, *, streamed: bool, dtype: Any, device: Any) -> None:
        import torch

        device = "cpu" if streamed else device  # a map of files is read by the processor
        self._rows = torch.from_numpy(mapped.rows).to(device)
        self._kept = mapped.kept
        self._context: Callable[[], Any] = ExitStack
        if streamed:
            self.model, self._context = _streamed(mapped.checkpoint)
        else:
            self.model = load_student(mapped.checkpoint).to(device=device, dtype=dtype)
        self.model.eval().requires_grad_(False)
        self._seq2seq = bool(self.model.config.is_encoder_decoder)

    def __call__(self, batch: Mapping[str, Any], *, hidden: bool = False) -> Any:
        """What the unmodified class gives for a batch of the slice's own ids; logits of kept rows alone (batch, tokens, kept)."""
        import torch

        place = self._rows.device
        given = {
            "input_ids": self._rows[batch["input_ids"].to(place)],
            "attention_mask": batch["attention_mask"].to(place),
        }
        if self._seq2seq:
            labels = batch["labels"].to(place)
            given["labels"] = torch.where(labels < 0, labels, self._rows[labels.clamp(min=0)])
        with torch.no_grad(), self._context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.model(**given, output_hidden_states=hidden)
        found["logits"] = found["logits"].float()[..., self._rows[: self._kept]].to(batch["input_ids"].device)
        return found


def _streamed(checkpoint: Checkpoint) -> tuple[Any, Callable[[], Any]]:
    from langslice.model.anatomy import read_anatomy
    from langslice.scoring.mapped_model import MappedWeights, load_unmodified, one_layer_at_a_time
    from langslice.scoring.sites import find_sites

    try:
        anatomy, weights = read_anatomy(checkpoint), MappedWeights(checkpoint)
        model = load_unmodified(checkpoint, anatomy, weights, whole=False)
        sites = find_sites(model, anatomy)
    except LangsliceError as error:
        raise CheckpointError(f"--stream-teacher: {error.message}", "leave it out, or use --teacher-cache") from error
    model.config.use_cache = False
    return model, lambda: one_layer_at_a_time(model, sites, weights)
