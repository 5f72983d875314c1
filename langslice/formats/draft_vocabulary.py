"""A reduced output head for speculative decoding: rows of the most used tokens, and the map of EAGLE-3 (model/draft_head.py).

Of a draft model it is the whole draft with a smaller head. Of any other model it is the head alone, `lm_head.weight` with `d2t` and
`t2d`; next to it the same map in the files that other programs read:

    d2t.npy, t2d.npy                        speculators, to train a draft: --d2t-path, --t2d-path
    vocab_map.safetensors, reduced_vocab.json   TensorRT Edge-LLM, to decode with a reduced head: --reduced_vocab_dir

Source: scripts/train.py of speculators; the page "Vocabulary Reduction" of TensorRT Edge-LLM.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from langslice.errors import ExportError, PlanError
from langslice.files.safetensors_header import TensorEntry, build_header
from langslice.formats.draft_check import check_head, check_outputs
from langslice.formats.job import ExportJob, refuse_unused
from langslice.formats.options import DraftHeadOptions
from langslice.model.axes import refuse_packed
from langslice.model.checkpoint import open_checkpoint
from langslice.model.draft_head import D2T, HEAD, T2D, DraftMap, is_draft, write_values
from langslice.model.token_id_fields import IdMap
from langslice.model.transformers_classes import full_config, ties_embeddings
from langslice.options import codes, listed
from langslice.planning.criteria import read_criteria
from langslice.planning.drafts import resized
from langslice.planning.reserved_tokens import unused_reserved
from langslice.planning.side_files import id_fields, write_side_files
from langslice.planning.source import Source
from langslice.planning.token_free_rows import protected_rows
from langslice.verification.check import Check
from langslice.verification.tensors import as_rows
from langslice.vocabulary.most_used import most_used
from langslice.writing.shards import TensorEdit, write_shards

_WINDOW = 4096
# By which a class changes what its head gives; a draft's head gives what the rows alone do.
_SCALES = ("logit_scale", "logits_scaling", "final_logit_softcapping", "output_multiplier_scale")
# Tables that a model reads tokens by.
_INPUT = re.compile(r"(?:.*\.)?(?:embed_tokens|word_embeddings|wte|shared|embed_in|tok_embeddings)\.weight")


@dataclass(frozen=True)
class _Head:
    """Which rows of which table.

    entry  the table of the source
    rows   (n,) int64 of it, ascending
    map    between the new head's numbering and the target's
    """

    entry: TensorEntry
    rows: np.ndarray
    map: DraftMap


def write_draft(job: ExportJob) -> tuple[list[Check], list[str], dict[str, Any]]:
    """Write the reduced head, or the draft with it; gives checks, notes, and facts for the record.

    Raises  ExportError, PlanError, LanguageError
    """
    refuse_unused(job.options, DraftHeadOptions, "a draft's head", "leave it out")
    size = job.options.draft_vocabulary
    if size is None:
        raise ExportError("nothing says how many tokens the draft's head has", "add --draft-vocabulary 32000")
    source, draft = Source(job.checkpoint), is_draft(job.checkpoint.config)
    refuse_packed(source.axes, job.checkpoint.shapes)
    if size >= source.rows:
        raise ExportError(
            f"--draft-vocabulary {size}: the vocabulary has {source.rows:,} rows, so that nothing would be left out"
        )
    head = _of_draft(job, source, size) if draft else _of_model(job, source, size)
    job.report("writing", 0, 0)
    if draft:
        _write_checkpoint(source, head, job)
    else:
        _write_head(head, job)
    notes = _notes(job, head, size)
    facts = {"to": "draft", "draft_vocabulary": len(head.rows), "rows": head.map.rows, "head": head.entry.name}
    if not job.options.verify:
        return [], [*notes, "the head was not compared with the model (--no-verify)"], facts
    job.report("verifying", 0, 0)
    checks = [check_head(job.staging, head.entry, head.rows, head.map)]
    checks += [] if draft else check_outputs(job, head.rows)
    return checks, notes, facts


def _of_model(job: ExportJob, source: Source, size: int) -> _Head:
    """The rows of an ordinary model's output head."""
    if job.options.target is not None:
        raise ExportError("--target is for a draft model, and this is none", "leave it out")
    name = _head_name(source)
    rows = _ranked(job, source, size, None)
    return _Head(job.checkpoint.tensors[name], rows, DraftMap(rows, source.rows))


def _of_draft(job: ExportJob, source: Source, size: int) -> _Head:
    """The rows of a draft's head: of the tokens that it can propose, those used most."""
    draft, tensors = source.draft, job.checkpoint.tensors
    if draft is None or HEAD not in tensors:
        raise ExportError(
            f"the draft has no {D2T if draft is None else HEAD}: only a head with a map of its own can be made smaller"
        )
    if job.options.target is None:
        raise ExportError(
            "a draft has no tokenizer to rank tokens by", "name the model that it drafts for: --target MODEL"
        )
    if size >= len(draft.targets):
        raise ExportError(f"--draft-vocabulary {size}: the draft's head has {len(draft.targets):,} rows already")
    target = Source(open_checkpoint(job.options.target))
    if target.rows != source.rows:
        raise ExportError(
            f"the draft reads a vocabulary of {source.rows:,} rows, {job.options.target} has {target.rows:,}",
            "is it the draft of this model?",
        )
    chosen = np.zeros(source.rows, dtype=bool)
    chosen[_ranked(job, target, size, draft.flags)] = True
    rows = np.flatnonzero(chosen[draft.targets])
    return _Head(tensors[HEAD], rows, DraftMap(draft.targets[rows], draft.rows))


def _ranked(job: ExportJob, source: Source, size: int, among: np.ndarray | None) -> np.ndarray:
    """Ids of the most used tokens, of which those that the configuration names are some.

    among  (rows,) which may be taken; None for all
    """
    tokenizer, options = source.tokenizer, job.options
    count = len(tokenizer.tokens)
    languages = codes(options.languages) or codes(job.request.get("languages"))
    named = protected_rows(id_fields(source.checkpoint, source.files, rows=source.rows, ignore=frozenset()), {})
    try:
        return most_used(
            tokenizer,
            size,
            languages=languages,
            counts=read_criteria(tokenizer, {"counts": listed(options.counts)}, job.report),
            protected=[row for row in named if row < count],
            released=unused_reserved(source, named),
            among=None if among is None else among[:count],
        )
    except PlanError as error:
        raise ExportError(f"--draft-vocabulary {size}: {error.message}", error.hint) from error


def _head_name(source: Source) -> str:
    """The tensor of an ordinary model that is its output head.

    Raises  ExportError where there is none that a draft's head can be
    """
    checkpoint = source.checkpoint
    config = full_config(checkpoint.config) or checkpoint.config
    if config.get("is_encoder_decoder") or not any("ForCausalLM" in name for name in config.get("architectures") or ()):
        raise ExportError("only a decoder's output head can propose tokens", "name a causal language model, or a draft")
    tables = {name: axes.axes for name, axes in source.axes.items() if axes.axes and axes.axes[0] == "vocab"}
    biases = [name for name, axes in tables.items() if len(axes or ()) == 1]
    if biases:
        raise ExportError(f"the output head has {biases[0]}, and a draft's head has none")
    heads = [name for name in tables if _INPUT.fullmatch(name) is None]
    if not heads and ties_embeddings(checkpoint.config):
        heads = list(tables)
    if len(heads) != 1:
        raise ExportError(f"which tensor is the output head is not known: {', '.join(heads or tables)}")
    width, hidden = checkpoint.shapes[heads[0]][1], config.get("hidden_size")
    if hidden is not None and width != hidden:
        raise ExportError(
            f"{heads[0]} reads {width} numbers, and the model's states have {hidden}: a draft's head reads states"
        )
    return heads[0]


def _write_head(head: _Head, job: ExportJob) -> None:
    """The head and its map as one safetensors file, and the map for other programs."""
    count, rows = len(head.rows), head.map.rows
    shape = (count, *head.entry.shape[1:])
    table = as_rows(head.entry, 0)
    parts = [
        (HEAD, head.entry.dtype, shape, count * table[0].nbytes),
        (D2T, "I64", (count,), 8 * count),
        (T2D, "BOOL", (rows,), rows),
    ]
    with (job.staging / "model.safetensors").open("wb") as file:
        file.write(build_header(parts, {"format": "pt"}, (8, 0)))
        for start in range(0, count, _WINDOW):
            file.write(np.ascontiguousarray(table[head.rows[start : start + _WINDOW]]).tobytes())
        file.write(head.map.offsets.astype("<i8").tobytes() + head.map.flags.tobytes())
    np.save(job.staging / "d2t.npy", head.map.offsets)
    np.save(job.staging / "t2d.npy", head.map.flags)
    with (job.staging / "vocab_map.safetensors").open("wb") as file:
        file.write(build_header([("vocab_map", "I32", (count,), 4 * count)], {"format": "pt"}, (8, 0)))
        file.write(head.map.targets.astype("<i4").tobytes())
    sizes = {"vocab_size": rows, "reduced_vocab_size": count}
    (job.staging / "reduced_vocab.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


def _write_checkpoint(source: Source, head: _Head, job: ExportJob) -> None:
    """The draft with fewer rows in its head, and all else as it is."""
    checkpoint = source.checkpoint
    along = {name for name, axes in source.axes.items() if axes.axes and axes.axes[0] == "draft_vocab"}
    edits = {
        name: TensorEdit("slice", {0: head.rows}) if name in along else TensorEdit("keep")
        for name in checkpoint.tensors
    }
    prefix = checkpoint.model_folder.relative_to(checkpoint.folder)
    (job.staging / prefix).mkdir(parents=True, exist_ok=True)
    write_shards(checkpoint, edits, job.staging / prefix)
    same = IdMap(np.arange(source.rows), size=source.rows)
    write_side_files(
        checkpoint, source.files, same, job.staging, implied={}, ignore=frozenset(),
        restructure=lambda name, document: resized(document, len(head.rows)) if name == checkpoint.config_name else document,
    )  # fmt: skip
    tensors = open_checkpoint(job.staging / prefix).tensors
    for name, values in ((D2T, head.map.offsets), (T2D, head.map.flags)):
        if name in tensors:
            write_values(tensors[name], values)


def _notes(job: ExportJob, head: _Head, size: int) -> list[str]:
    notes = []
    if len(head.rows) < size:
        notes.append(f"the head has {len(head.rows):,} tokens: no others are known to be used")
    scaled = [name for name in _SCALES if job.checkpoint.config.get(name) not in (None, 1, 1.0)]
    if scaled and not is_draft(job.checkpoint.config):
        notes.append(f"the model changes what its head gives by {scaled[0]}, which is not in the head")
    return notes
