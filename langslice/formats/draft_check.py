"""A reduced head compared with what it was made from: its rows and map byte for byte, and what the model computes with it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import TensorEntry
from langslice.formats.job import ExportJob
from langslice.model.draft_head import D2T, HEAD, T2D, DraftMap
from langslice.model.transformers_classes import model_class, quiet_transformers
from langslice.verification.check import MAX_EXAMPLES, Check
from langslice.verification.model_inputs import CANNOT_RUN
from langslice.verification.outputs import lacking_memory, load_unmodified
from langslice.verification.tensors import as_rows

_LINES_EACH, _LONGEST, _WINDOW = 8, 128, 4096
# Of the largest logit: a product over other rows is summed in another order.
_ROUNDING = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}


def check_head(folder: Path, entry: TensorEntry, rows: np.ndarray, expected: DraftMap) -> Check:
    """Every row of the written head is the source's, and both maps say so.

    entry  the table of the source
    rows   (n,) int64 of it
    """
    try:
        tensors = {tensor.name: tensor for tensor in _shards(folder)}
        written = as_rows(tensors[HEAD], 0)
        offsets = np.fromfile(
            tensors[D2T].path, "<i8" if tensors[D2T].dtype == "I64" else "<i4", len(rows), offset=tensors[D2T].start
        )
    except (KeyError, CheckpointError) as error:
        return Check("head", False, "the written head cannot be read", (str(error),))
    wrong = []
    if not np.array_equal(offsets + np.arange(len(rows)), expected.targets):
        wrong.append(f"{D2T} does not lead to the tokens of the head's rows")
    if T2D in tensors:
        flags = np.fromfile(tensors[T2D].path, "u1", tensors[T2D].shape[0], offset=tensors[T2D].start)
        wrong += [] if np.array_equal(flags.astype(bool), expected.flags) else [f"{T2D} disagrees with {D2T}"]
    if len(written) != len(rows):
        wrong.append(f"{HEAD} has {len(written)} rows, expected {len(rows)}")
    source = as_rows(entry, 0)
    for start in range(0, 0 if wrong else len(rows), _WINDOW):
        these = rows[start : start + _WINDOW]
        off = (source[these] != written[start : start + len(these)]).any(axis=(1, 2))
        wrong += [f"row {start + int(at)} is not row {these[at]} of {entry.name}" for at in np.flatnonzero(off)]
    return Check("head", not wrong, f"{len(rows)} rows and their map, byte for byte", tuple(wrong[:MAX_EXAMPLES]))


def _shards(folder: Path) -> list[TensorEntry]:
    from langslice.files.safetensors_header import read_header

    files = sorted(path for path in folder.glob("*.safetensors") if path.name != "vocab_map.safetensors")
    return [tensor for path in files for tensor in read_header(path)[0]]


def check_outputs(job: ExportJob, rows: np.ndarray) -> list[Check]:
    """The model run on text: what the written head gives of its last states, and how often the likeliest token is in the head.

    rows  (n,) int64 the model's id of every row
    """
    import torch
    import transformers
    from safetensors.torch import load_file

    folder = job.checkpoint.model_folder
    lacking = lacking_memory(job.checkpoint, masked=False)
    if not lacking and model_class(folder) is None:
        lacking = "config.json names no class that transformers has (`architectures`)"
    if lacking:
        return [Check("outputs", None, lacking)]
    head = load_file(job.staging / "model.safetensors")[HEAD]
    with quiet_transformers(), torch.inference_mode():
        auto = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        try:
            model = load_unmodified(folder)
        except CANNOT_RUN as error:
            return [Check("outputs", None, f"not run: {str(error).splitlines()[0]}")]
        seen: list[Any] = []
        model.get_output_embeddings().register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
        differences: list[float] = []
        checks = []
        for name, read in job.texts.items():
            likeliest: list[int] = []
            for line in islice(read(), _LINES_EACH):
                given = auto(line, return_tensors="pt", truncation=True, max_length=_LONGEST)["input_ids"]
                if given.numel():
                    model(given)
                    states, logits = seen.pop()
                    differences.append(_difference(states, logits, head, rows, likeliest))
            if likeliest:
                share = np.isin(likeliest, rows).mean()
                detail = f"{share:.1%} of {len(likeliest)} positions: the model's likeliest token is in the head"
                checks.append(Check(f"proposed, {name}", None, detail))
    if not differences:
        return [Check("outputs", None, "not run: there is no text to run the model on")]
    worst = float(np.max(differences))  # NaN where one is
    detail = f"logits of {len(rows)} tokens differ from the model's by {worst:.0e} of the largest"
    return [Check("outputs", worst <= _ROUNDING.get(str(head.dtype).removeprefix("torch."), 1e-5), detail), *checks]


def _difference(states: Any, logits: Any, head: Any, rows: np.ndarray, likeliest: list[int]) -> float:
    """How far the written head's logits are from the model's, as a share of the largest; adds the likeliest tokens to a list.

    states  (1, tokens, hidden), what the model's own head is given
    logits  (1, tokens, vocabulary), what it gives
    """
    import torch

    likeliest += logits[0].float().argmax(-1).tolist()
    off = (states @ head.T).float() - logits[..., torch.from_numpy(rows)].float()
    return float(off.abs().max() / logits.float().abs().max().clamp(min=1.0))
