"""The whole pipeline of a sentence-transformers folder: tokenizer, transformer, pooling and what follows.

The slice runs as a client runs it. What it must give comes from a folder put together for the purpose: the source's weights
and modules, the slice's tokenizer, and its ids turned into the source's on their way into the transformer. (That the slice's
tokenizer is right is the business of other checks; the source's is too large to be loaded once more.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from langslice.files.json_forms import parse_json
from langslice.model.checkpoint import Checkpoint
from langslice.model.transformers_classes import quiet_transformers
from langslice.planning.plan import SlicePlan
from langslice.verification.check import Check
from langslice.verification.narrowed_source import hidden_dims
from langslice.verification.outputs import lacking_memory, load_slice, load_source_masked, load_unmodified

_LISTING = "modules.json"
_CLASSES = ("SentenceTransformer", "SparseEncoder")
_OPTIONS: Mapping[str, Any] = {"device": "cpu", "local_files_only": True, "trust_remote_code": False}
_SENTENCES = 4
# Modules that a vocabulary slice cannot upset: their files are the source's, which the check of files compares.
_OF_HIDDEN_STATES = frozenset({"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout"})
_TOLERANCE = 1e-5  # of the largest value; sums over another padding may round otherwise


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a sentence-transformers model."""
    return (folder / _LISTING).is_file()


def knows_no_vocabulary(folder: Path) -> bool:
    """Whether all modules are of sentence-transformers and see neither tokens nor layers, but hidden states alone."""
    modules = parse_json((folder / _LISTING).read_bytes())
    kinds = [str(module.get("type", "")).split(".") for module in modules]
    return all(kind[0] == "sentence_transformers" and kind[-1] in _OF_HIDDEN_STATES for kind in kinds)


def check_pipeline(
    checkpoint: Checkpoint,
    sliced: Checkpoint,
    plan: SlicePlan,
    files: tuple[Collection[str], Collection[str]],
    lines: Sequence[str],
) -> Check:
    """Embed sentences with the whole pipeline of the slice, and with the source's modules.

    files  names of the tokenizer files of the source and of the slice, next to their weights
    lines  sentences that use kept tokens only
    """
    lacking = lacking_memory(checkpoint, masked=plan.structure is not None)
    if lacking:
        return Check("pipeline", None, lacking)
    sentences = [*lines[:_SENTENCES], "1"]
    with quiet_transformers(), TemporaryDirectory(prefix="langslice-verify-") as folder:
        try:
            load = _pipeline_class(checkpoint.folder)
        except ImportError as error:
            return Check("pipeline", None, f"not run: sentence-transformers cannot be imported: {error}")
        try:
            inner = checkpoint.model_folder.relative_to(checkpoint.folder)
            of_slice = {inner / name: sliced.model_folder / name for name in files[1]}
            links = {**_files(checkpoint, files[0]), **of_slice}
            pipeline = load(_linked(links, Path(folder) / "source"), **_OPTIONS)
            before = _embed(_as_source(pipeline, checkpoint, plan), sentences)
            del pipeline
        except Exception as error:  # noqa: BLE001 - modules raise anything
            return Check("pipeline", None, f"not run: the source itself does not run here: {_first_line(error)}")
        try:
            after = _embed(_of_slice(load, checkpoint, sliced, plan, Path(folder) / "slice"), sentences)
        except Exception as error:  # noqa: BLE001 - as above
            return Check("pipeline", False, "the source's pipeline runs, the slice's does not", (_first_line(error),))
    if before.shape[1] == plan.rows != after.shape[1]:  # one dimension for each token, as sparse encoders have
        size = len(plan.kept)  # of a new token the source has no dimension
        keep = np.r_[0:size, size + len(plan.extension) : after.shape[1]]
        before, after = before[:, plan.new_to_old[keep]], after[:, keep]
    dims = hidden_dims(checkpoint, plan.structure)
    before = before if dims is None else before[:, dims]
    return _compare(before, after, sentences)


def _pipeline_class(folder: Path) -> Any:
    """The class of sentence-transformers that a folder says it is of; raises ImportError where the library is missing."""
    import sentence_transformers

    path = folder / "config_sentence_transformers.json"
    stated = parse_json(path.read_bytes()).get("model_type") if path.is_file() else None
    name = stated if stated in _CLASSES and hasattr(sentence_transformers, stated) else _CLASSES[0]
    return getattr(sentence_transformers, name)


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


def _files(checkpoint: Checkpoint, without: Collection[str]) -> dict[Path, Path]:
    """Every file of a checkpoint by its name, without some that are next to its weights."""
    inner = checkpoint.model_folder.relative_to(checkpoint.folder)
    names = {path.relative_to(checkpoint.folder): path for path in checkpoint.folder.rglob("*") if path.is_file()}
    return {name: path for name, path in names.items() if name not in {inner / one for one in without}}


def _linked(links: Mapping[Path, Path], folder: Path) -> str:
    """A folder of links to files: name -> file."""
    for name, path in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(path.resolve())
    return str(folder)


def _of_slice(load: Any, checkpoint: Checkpoint, sliced: Checkpoint, plan: SlicePlan, folder: Path) -> Any:
    """The slice's own pipeline; where its layers have sizes of their own, without running the code in its folder."""
    if plan.structure is None or plan.structure.style != "sliced":
        pipeline = load(str(sliced.folder), **_OPTIONS)
        if plan.structure is None or not plan.structure.hidden:
            return pipeline if plan.structure is None else pipeline.float()
        return _with_model(pipeline, load_slice(checkpoint, sliced, plan))
    weights = [path.name for path in sliced.model_folder.glob("*.safetensors*")]
    inner = checkpoint.model_folder.relative_to(checkpoint.folder)
    of_source = {inner / path.name: path for path in checkpoint.model_folder.iterdir() if _is_model_file(path)}
    pipeline = load(_linked({**_files(sliced, [*weights, "config.json"]), **of_source}, folder), **_OPTIONS)
    return _with_model(pipeline, load_unmodified(sliced.model_folder, "float32"))


def _is_model_file(path: Path) -> bool:
    return path.name == "config.json" or path.name.endswith((".safetensors", ".bin", ".index.json"))


def _with_model(pipeline: Any, model: Any) -> Any:
    """A pipeline with another model in its transformer, the body alone where that is what it runs."""
    # A property of the module since sentence-transformers 6, an attribute before.
    name = "model" if isinstance(getattr(type(pipeline[0]), "auto_model", None), property) else "auto_model"
    whole = isinstance(model, type(pipeline[0].auto_model))
    setattr(pipeline[0], name, model if whole else model.base_model)
    return pipeline.float()


def _as_source(pipeline: Any, checkpoint: Checkpoint, plan: SlicePlan) -> Any:
    """Let the transformer of a pipeline see the source's ids, and skip what a structural slice removed."""
    import torch

    if plan.structure is not None:
        pipeline = _with_model(pipeline, load_source_masked(checkpoint, plan.structure))
    kept = torch.from_numpy(plan.kept)

    def renumber(module: Any, inputs: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        return ({**inputs[0], "input_ids": kept[inputs[0]["input_ids"]]}, *inputs[1:])

    pipeline[0].register_forward_pre_hook(renumber)
    return pipeline


def _embed(pipeline: Any, sentences: Sequence[str]) -> np.ndarray:
    found = pipeline.eval().encode(list(sentences), show_progress_bar=False, convert_to_tensor=True)
    return np.asarray((found.to_dense() if found.is_sparse else found).cpu().double())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
