"""A model as ONNX, laid out as transformers.js and Optimum look for it, and compared in ONNX Runtime with transformers.

Written are files in float32 by torch's exporter, the same in int8 by ONNX Runtime, and next to them every file of the model but its
weights. An encoder or a decoder is `onnx/model.onnx`; an encoder-decoder is `onnx/encoder_model.onnx` and
`onnx/decoder_model_merged.onnx`.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

from langslice.errors import ExportError
from langslice.formats.job import ExportJob, refuse_unused
from langslice.model.checkpoint import Checkpoint
from langslice.model.quantisation import quantisation
from langslice.model.transformers_classes import dtype_option, full_config, model_class, quiet_transformers
from langslice.options import Options
from langslice.verification.check import Check
from langslice.verification.file_names import FILE_NAME

FOLDER, QUANTISED = "onnx", "_quantized"
ENCODER, DECODER, WITH_ENCODER = "encoder", "decoder", "encoder-decoder"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_WEIGHTS = (".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json")
_PROMPTS_EACH, _PROMPTS, _LONGEST = 4, 8, 128
# A protocol buffer holds 2 GiB; the graph itself takes little.
_MOST_BYTES = 2**31 - 2**24


def write_onnx(job: ExportJob) -> tuple[list[Check], list[str], dict[str, Any]]:
    """Write the files and what belongs to them; gives checks, notes, and facts for the record.

    Raises  ExportError
    """
    from langslice.formats.onnx_check import check_files

    stock, kind = _check_possible(job)
    checkpoint = job.checkpoint
    folder = str(checkpoint.model_folder)
    with quiet_transformers():
        import transformers

        auto = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        plain = {"local_files_only": True, "attn_implementation": "eager", **dtype_option("float32")}
        model = stock.from_pretrained(folder, **plain).eval()
        if hasattr(model, "set_experts_implementation"):
            # Products over the experts of each token: the others branch by what the router says.
            model.set_experts_implementation("batched_mm")
    (job.staging / FOLDER).mkdir()
    job.report("writing", 0, 0)
    with _quiet():
        files = _write_files(model, kind, job.staging / FOLDER)
    _copy_files(checkpoint, job.staging)
    facts = {"to": "onnx", "kind": kind, "files": list(files)}
    if not job.options.verify:
        return [], ["the files were not compared with the model (--no-verify)"], facts
    job.report("verifying", 0, 0)
    prompts = [auto(line)["input_ids"] for read in job.texts.values() for line in islice(read(), _PROMPTS_EACH)]
    prompts = [ids for ids in prompts if 2 < len(ids) <= _LONGEST][:_PROMPTS]
    checks = []
    for label, end in (("", ""), ("int8 ", QUANTISED)):
        paths = {name: job.staging / FOLDER / f"{name}{end}.onnx" for name in files}
        checks += check_files(model, kind, paths, prompts, label)
    return checks, [], facts


def _check_possible(job: ExportJob) -> tuple[Any, str]:
    """The class to load and what it is; refuses what is not written, before anything is."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"this needs packages that are not installed: {', '.join(missing)}", "pip install 'langslice[onnx]'"
        )
    refuse_unused(job.options, Options, "ONNX files", "leave it out, or pass --to gguf")
    config = full_config(job.checkpoint.config) or job.checkpoint.config
    if quantisation(config):
        raise ExportError(f"the weights are quantised already ({quantisation(config)}): only plain ones are written")
    shapes = job.checkpoint.shapes
    size = 4 * sum(prod(shapes[name]) for name in shapes.keys() - job.checkpoint.aliases.keys())
    if size > _MOST_BYTES:
        raise ExportError(
            f"the weights take {size / 1e9:.1f} GB in float32, and an ONNX file holds 2 GB",
            "slice further, or export with optimum-cli, which lays weights next to the file",
        )
    return _class_of(job.checkpoint, config)


def _class_of(checkpoint: Checkpoint, config: dict[str, Any]) -> tuple[Any, str]:
    import transformers

    stock = model_class(checkpoint.model_folder)
    name = stock.__name__ if stock is not None else ", ".join(map(str, config.get("architectures") or ["no class"]))
    parts = [part for part in ("vision_config", "audio_config", "encoder") if isinstance(config.get(part), dict)]
    if parts:
        raise ExportError(
            f"{name} is a model of several ({', '.join(parts)}): only models of text and Whisper are written"
        )
    generates = stock is not None and stock.can_generate()
    if generates:
        return stock, WITH_ENCODER if config.get("is_encoder_decoder") else DECODER
    if config.get("is_encoder_decoder") and not name.endswith("EncoderModel"):
        raise ExportError(
            f"{name} is an encoder-decoder without an output head, which nothing runs as ONNX",
            "export the model that generates",
        )
    return (stock if name.endswith("EncoderModel") else transformers.AutoModel), ENCODER


def _write_files(model: Any, kind: str, folder: Path) -> list[str]:
    """Write every file in float32 and in int8; gives their names, without the ending."""
    from langslice.formats.onnx_graphs import decoder_graph, decoder_graphs, encoder_graph
    from langslice.formats.onnx_merge import merge

    if kind != WITH_ENCODER:
        _export((encoder_graph if kind == ENCODER else decoder_graph)(model), folder / "model.onnx")
        _quantise(folder / "model.onnx", folder / f"model{QUANTISED}.onnx")
        return ["model"]
    encoder, hidden = _encoder_of(model)
    _export(encoder, folder / "encoder_model.onnx")
    _quantise(folder / "encoder_model.onnx", folder / f"encoder_model{QUANTISED}.onnx")
    graphs = decoder_graphs(model, hidden, masked=model.main_input_name == "input_ids")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        first, later = Path(scratch) / "first.onnx", Path(scratch) / "later.onnx"
        for graph, path in zip(graphs, (first, later), strict=True):
            _export(graph, path)
        merge(first, later, folder / "decoder_model_merged.onnx")
        for path in (first, later):
            _quantise(path, path)
        merge(first, later, folder / f"decoder_model_merged{QUANTISED}.onnx")
    return ["encoder_model", "decoder_model_merged"]


def _encoder_of(model: Any) -> tuple[Any, Any]:
    """The graph of a model's encoder, and hidden states that it gives."""
    import torch

    from langslice.formats.onnx_graphs import encoder_graph

    encoder, source = model.get_encoder(), None
    if model.main_input_name != "input_ids":
        source = torch.zeros(2, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    graph = encoder_graph(encoder, source=source)
    with torch.no_grad():
        return graph, graph.module(*(one.example for one in graph.inputs))


def _export(graph: Any, path: Path) -> None:
    """Trace a graph's module on its examples, into one file."""
    import torch

    # Texts of one length in one place are not of one length in all.
    open_sizes = {name: torch.export.Dim(name) for one in graph.inputs for name in one.sizes.values()}
    open_sizes["total_sequence_length"] = torch.export.Dim.DYNAMIC
    shapes = tuple({axis: open_sizes[name] for axis, name in one.sizes.items()} for one in graph.inputs)
    try:
        torch.onnx.export(
            graph.module, tuple(one.example for one in graph.inputs), str(path), input_names=[one.name for one in graph.inputs],
            output_names=list(graph.outputs), dynamo=True, dynamic_shapes={"given": shapes}, external_data=False, verbose=False,
        )  # fmt: skip
    except (torch.onnx.OnnxExporterError, ValueError, RuntimeError) as error:
        deepest: BaseException = error
        while deepest.__cause__ is not None:
            deepest = deepest.__cause__
        raise ExportError(
            f"torch's exporter does not write {type(graph.module.model).__name__}: {str(deepest).splitlines()[0][:300]}",
            "a newer torch may; `langslice export --to gguf` writes other models",
        ) from error


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
