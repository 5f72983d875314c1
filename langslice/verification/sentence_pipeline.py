"""The whole pipeline of a sentence-transformers folder: tokenizer, transformer, pooling and what follows.

The slice runs as a client runs it. What it must give comes from a folder put together for the purpose: the source's weights
and modules, the slice's tokenizer, and its ids turned into the source's on their way into the transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import quiet_transformers
from langslice.planning.plan import SlicePlan
from langslice.tokenizer import SourceTokenizer
from langslice.verification.check import Check

_LISTING = "modules.json"
_SENTENCES = 4
_TOLERANCE = 1e-5  # of the largest value; sums over another padding may round otherwise


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a sentence-transformers model."""
    return (folder / _LISTING).is_file()


def check_pipeline(
    checkpoint: Checkpoint,
    sliced: Checkpoint,
    plan: SlicePlan,
    tokenizers: tuple[SourceTokenizer, SourceTokenizer],
    lines: Sequence[str],
) -> Check:
    """Embed sentences with the whole pipeline of the slice, and with the source's modules.

    tokenizers  of the source and of the slice
    lines       sentences that use kept tokens only
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        return Check("pipeline", None, f"not run: sentence-transformers cannot be imported: {error}")
    sentences = [*lines[:_SENTENCES], "1"]
    with quiet_transformers(), TemporaryDirectory(prefix="langslice-verify-") as folder:
        _put_together(tokenizers[0], checkpoint, tokenizers[1], Path(folder))
        try:
            reference = SentenceTransformer(folder, **_OPTIONS)
            before = _embed(_as_source(reference, checkpoint, plan), sentences)
            del reference
        except Exception as error:  # noqa: BLE001 - modules raise anything
            return Check("pipeline", None, f"not run: the source itself does not run here: {_first_line(error)}")
        try:
            after = _embed(SentenceTransformer(str(sliced.folder), **_OPTIONS), sentences)
        except Exception as error:  # noqa: BLE001 - as above
            return Check("pipeline", False, "the source's pipeline runs, the slice's does not", (_first_line(error),))
    return _compare(before, after, sentences)


_OPTIONS: Mapping[str, Any] = {"device": "cpu", "local_files_only": True, "trust_remote_code": False}


def _compare(before: np.ndarray, after: np.ndarray, sentences: Sequence[str]) -> Check:
    if before.shape != after.shape:
        detail = f"embeddings have shape {after.shape}, expected {before.shape}"
        return Check("pipeline", False, detail, (detail,))
    largest = max(float(np.abs(before).max()), 1e-30)
    off = np.abs(before - after).max(axis=1) / largest
    wrong = [
        f"{sentence!r}: embeddings differ by {one:g} of the largest value"
        for sentence, one in zip(sentences, off.tolist(), strict=True)
        if not one <= _TOLERANCE
    ]
    detail = f"{len(sentences)} sentences through all sentence-transformers modules: embeddings differ by {off.max():g}"
    return Check("pipeline", not wrong, detail, tuple(wrong))


def _put_together(source: SourceTokenizer, checkpoint: Checkpoint, result: SourceTokenizer, folder: Path) -> None:
    """Link every file of the source into a folder, but those of the tokenizer, which are the slice's."""
    inner = checkpoint.model_folder.relative_to(checkpoint.folder)
    of_source = {inner / name for name in source.files}
    links = {path.relative_to(checkpoint.folder): path for path in checkpoint.folder.rglob("*") if path.is_file()}
    links = {name: path for name, path in links.items() if name not in of_source}
    links |= {inner / name: result.folder / name for name in result.files}
    for name, path in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(path.resolve())


def _as_source(pipeline: Any, checkpoint: Checkpoint, plan: SlicePlan) -> Any:
    """Let the transformer of a pipeline see the source's ids, and skip what a structural slice removed."""
    import torch

    if plan.structure is not None:
        from langslice.verification.masked_source import load_masked
        from langslice.verification.outputs import loading_options

        own = pipeline[0].auto_model
        masked = load_masked(checkpoint, plan.structure, loading_options("float32"))
        # A property of the module since sentence-transformers 6, an attribute before.
        name = "model" if isinstance(getattr(type(pipeline[0]), "auto_model", None), property) else "auto_model"
        setattr(pipeline[0], name, masked if type(masked) is type(own) else masked.base_model)
    kept = torch.from_numpy(plan.kept)

    def renumber(module: Any, inputs: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        return ({**inputs[0], "input_ids": kept[inputs[0]["input_ids"]]}, *inputs[1:])

    pipeline[0].register_forward_pre_hook(renumber)
    return pipeline


def _embed(pipeline: Any, sentences: Sequence[str]) -> np.ndarray:
    pipeline.eval().float()
    return np.asarray(
        pipeline.encode(list(sentences), show_progress_bar=False, convert_to_numpy=True), dtype=np.float64
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
