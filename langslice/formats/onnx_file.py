"""An encoder as ONNX, laid out as transformers.js and Optimum look for it, and compared in ONNX Runtime with transformers.

Written are `onnx/model.onnx` in float32 by torch's exporter, `onnx/model_quantized.onnx` in int8 by ONNX Runtime, and next to them
every file of the model but its weights.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.errors import ExportError
from langslice.formats.job import ExportJob
from langslice.model.checkpoint import Checkpoint
from langslice.model.quantisation import quantisation
from langslice.model.transformers_classes import dtype_option, full_config, quiet_transformers
from langslice.verification.check import Check
from langslice.verification.file_names import FILE_NAME

if TYPE_CHECKING:
    import torch

FOLDER, WHOLE, QUANTISED = "onnx", "model.onnx", "model_quantized.onnx"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_WEIGHTS = (".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json")
_OUTPUT = "last_hidden_state"
_PROMPTS_EACH, _PROMPTS, _LONGEST = 4, 8, 128
# Of the largest number; and the least cosine of a text's mean vector in int8, which only a broken file misses.
_TOLERANCE, _LEAST_COSINE = 1e-4, 0.9


def write_onnx(job: ExportJob) -> tuple[list[Check], list[str], dict[str, Any]]:
    """Write both files and what belongs to them; gives checks, notes, and facts for the record.

    Raises  ExportError
    """
    _check_possible(job)
    checkpoint = job.checkpoint
    with quiet_transformers():
        import transformers

        folder = str(checkpoint.model_folder)
        auto = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, **dtype_option("float32")).eval()
    names = _inputs(model)
    (job.staging / FOLDER).mkdir()
    whole, quantised = job.staging / FOLDER / WHOLE, job.staging / FOLDER / QUANTISED
    job.report("writing", 0, 0)
    with _quiet():
        _export(model, names, whole)
        _quantise(whole, quantised)
    _copy_files(checkpoint, job.staging)
    facts = {"to": "onnx", "inputs": list(names)}
    if not job.options.verify:
        return [], ["the files were not compared with the model (--no-verify)"], facts
    job.report("verifying", 0, 0)
    prompts = [auto(line)["input_ids"] for read in job.texts.values() for line in islice(read(), _PROMPTS_EACH)]
    prompts = [ids for ids in prompts if 2 < len(ids) <= _LONGEST][:_PROMPTS]
    return _checks(model, names, whole, quantised, prompts), [], facts


def _check_possible(job: ExportJob) -> None:
    """Refuse what is not written, before anything is."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"this needs packages that are not installed: {', '.join(missing)}", "pip install 'langslice[onnx]'"
        )
    unused = sorted(set(job.options.given()) & {"precision", "pre", "converter"})
    if unused:
        raise ExportError(f"--{unused[0]} has no effect on ONNX files", "leave it out, or pass --to gguf")
    config = full_config(job.checkpoint.config) or job.checkpoint.config
    if quantisation(config):
        raise ExportError(f"the weights are quantised already ({quantisation(config)}): only plain ones are written")
    classes = [str(name) for name in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") or any("CausalLM" in name or "LMHead" in name for name in classes):
        raise ExportError(
            f"only encoders are written as ONNX, this is {', '.join(classes)}",
            "export decoders and encoder-decoders with optimum-cli, which reads a slice as any checkpoint",
        )


def _inputs(model: Any) -> tuple[str, ...]:
    """What transformers.js gives the model."""
    more = ("token_type_ids",) if getattr(model.config, "type_vocab_size", 0) > 1 else ()
    return ("input_ids", "attention_mask", *more)


def _export(model: Any, names: Sequence[str], path: Path) -> None:
    """Trace the model on two texts of different length, sizes left open, into one file."""
    import torch

    class Bare(torch.nn.Module):
        """The model with its inputs in their order, and its one output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            """Hidden states (texts, tokens, hidden) of the last layer."""
            found: torch.Tensor = self.model(**dict(zip(names, given, strict=True)), return_dict=True).last_hidden_state
            return found

    ids = torch.ones(2, 6, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    sizes = {0: torch.export.Dim("batch_size"), 1: torch.export.Dim("sequence_length")}
    torch.onnx.export(
        Bare(), (ids, mask, torch.zeros_like(ids))[: len(names)], str(path), input_names=list(names), output_names=[_OUTPUT],
        dynamo=True, dynamic_shapes={"given": (sizes,) * len(names)}, external_data=False, verbose=False,
    )  # fmt: skip


def _quantise(whole: Path, path: Path) -> None:
    """Weights in eight bits, embeddings too; activations are rounded when the model runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(whole, path, weight_type=QuantType.QInt8, per_channel=True)


def _copy_files(checkpoint: Checkpoint, staging: Path) -> None:
    """Every file of the model but its weights, where transformers.js looks for it: in the root."""
    # slice.json is the record of another folder.
    names = {FILE_NAME, *(shard.path.name for shard in checkpoint.shards)}
    for folder in dict.fromkeys((checkpoint.folder, checkpoint.model_folder)):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in names and not path.name.endswith(_WEIGHTS):
                shutil.copyfile(path, staging / path.name)
            elif path.is_dir() and path != checkpoint.model_folder and (path / "config.json").is_file():
                shutil.copytree(
                    path, staging / path.name, ignore=shutil.ignore_patterns(*(f"*{end}" for end in _WEIGHTS))
                )


def _checks(
    model: Any, names: Sequence[str], whole: Path, quantised: Path, prompts: Sequence[Sequence[int]]
) -> list[Check]:
    """Hidden states of both files in ONNX Runtime, against the model's, each text alone and all of them padded."""
    import torch

    pad = getattr(model.config, "pad_token_id", None) or 0
    batches = [_batch([ids], pad) for ids in prompts] + [_batch(prompts, pad)]
    largest, cosines = 0.0, []
    sessions = [_session(path) for path in (whole, quantised)]
    for batch in batches:
        given = {name: batch[name] for name in names}
        with torch.no_grad():
            exact = model(**{name: torch.from_numpy(value) for name, value in given.items()}).last_hidden_state.numpy()
        kept = batch["attention_mask"].astype(bool)
        found, rounded = (session.run([_OUTPUT], given)[0] for session in sessions)
        largest = max(largest, float(np.abs(found - exact)[kept].max() / np.abs(exact[kept]).max()))
        for at, row in enumerate(kept):
            one, other = exact[at][row].mean(0), rounded[at][row].mean(0)
            cosines.append(float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))))
    told = f"{len(prompts)} texts alone and in one batch, against transformers"
    return [
        Check(
            "outputs",
            bool(prompts) and largest <= _TOLERANCE,
            f"{told}: hidden states of {WHOLE} differ by at most {largest:.1e} of the largest",
        ),
        Check(
            "int8 outputs",
            min(cosines) >= _LEAST_COSINE,
            f"{told}: cosine of mean vectors of {QUANTISED} at least {min(cosines):.4f}, {np.mean(cosines):.4f} on average",
        ),
    ]


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _batch(prompts: Sequence[Sequence[int]], pad: int) -> Mapping[str, np.ndarray]:
    """Texts in one matrix: each value (texts, tokens) int64."""
    length = max(map(len, prompts))
    ids = np.array([[*each, *[pad] * (length - len(each))] for each in prompts], dtype=np.int64)
    mask = np.array([[1] * len(each) + [0] * (length - len(each)) for each in prompts], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the exporter and the quantiser say nothing: what they made is compared."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
