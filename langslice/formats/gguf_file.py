"""The main flow of a GGUF export: read, write or have written, quantise, check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langslice.errors import ExportError
from langslice.formats.families import GgufFamily, gguf_family
from langslice.formats.gguf_check import Written, check_file
from langslice.formats.gguf_metadata import write_metadata
from langslice.formats.gguf_tensors import WRITTEN, GgufTensor, lay_out, plain_precision, write_tensors
from langslice.formats.gguf_vocabulary import chat_template, generation_ends, read_vocabulary, write_vocabulary
from langslice.formats.job import ExportJob, refuse_unused
from langslice.formats.modelfile import modelfile
from langslice.formats.options import GgufOptions
from langslice.formats.pre_tokenizers import HASHED, known_pre_tokenizers, original_hash
from langslice.model.quantisation import quantisation
from langslice.model.source_tokenizer import source_tokenizer, vocabulary_rows
from langslice.model.transformers_classes import full_config, quiet_transformers
from langslice.tokenizer import SourceTokenizer
from langslice.verification.check import Check

QUANTIZE = "llama-quantize"
# Run in another process, so that llama.cpp's converter meets the pre-tokenizer's name where it asks for it, and nothing else.
_CONVERT = """
import runpy, sys
from pathlib import Path
converter, pre = Path(sys.argv[1]).resolve(), sys.argv[2]
sys.path[:0] = [str(converter.parent), str(converter.parent / "gguf-py")]
sys.argv = [str(converter), *sys.argv[3:]]
if pre:
    try:
        from conversion.base import TextModel
        TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
        runpy.run_path(str(converter), run_name="__main__")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "conversion":
            raise
        names = runpy.run_path(str(converter))
        names["TextModel"].get_vocab_base_pre = lambda self, tokenizer: pre
        names["main"]()
else:
    runpy.run_path(str(converter), run_name="__main__")
"""


def write_gguf(job: ExportJob) -> tuple[list[Check], list[str], dict[str, Any]]:
    """Write the file and what Ollama needs; gives checks, notes, and facts for the record.

    Raises  ExportError, VerificationError
    """
    if find_spec("gguf") is None:
        raise ExportError("this needs the package gguf, which is not installed", "pip install 'langslice[gguf]'")
    refuse_unused(job.options, GgufOptions, "GGUF files", "leave it out, or pass --to draft")
    checkpoint, precision = job.checkpoint, job.options.precision.lower()
    plain = precision if precision in WRITTEN else plain_precision(checkpoint)
    if precision not in WRITTEN and shutil.which(QUANTIZE) is None:
        raise ExportError(
            f"{precision} is written by {QUANTIZE} of llama.cpp, which is not on the PATH",
            f"install llama.cpp, or choose one of {', '.join(WRITTEN)}",
        )
    if quantisation(checkpoint.config):
        raise ExportError(
            f"the weights are quantised already ({quantisation(checkpoint.config)}): only plain ones are written"
        )
    config = {**(full_config(checkpoint.config) or checkpoint.config), "vocab_size": vocabulary_rows(checkpoint)}
    tokenizer, auto = source_tokenizer(checkpoint), _auto(checkpoint.model_folder)
    pre, found_by = pre_name(checkpoint.folder, tokenizer, job.options.pre)
    path = job.staging / f"{job.name}-{plain}.gguf"
    job.report("writing", 0, 0)
    if job.options.converter is not None:
        family, tensors, notes = gguf_family(config), None, [f"written by {job.options.converter}"]
        _convert(Path(job.options.converter), checkpoint.model_folder, path, plain, pre)
    else:
        family = gguf_family(config)
        tensors, notes = _write(job, path, family, config, tokenizer, auto, plain, pre)
    if plain != precision:
        path = _quantise(path, job.staging / f"{job.name}-{precision}.gguf", precision)
    notes += _write_modelfile(job, path.name, auto)
    facts = {"to": "gguf", "precision": precision, "pre_tokenizer": pre, "pre_tokenizer_found_by": found_by}
    if not job.options.verify:
        return [], [*notes, "the file was not compared with the model (--no-verify)"], facts
    job.report("verifying", 0, 0)
    texts = dict(job.texts)
    if tokenizer.kind == "byte-bpe":
        # Signs, digits and blanks in a row, by which pre-tokenizers differ.
        texts["text of llama.cpp's hash"] = partial(iter, [known_pre_tokenizers()["text"]])
    written = Written(path, checkpoint, family, auto, tensors, precision)
    return check_file(written, texts), notes, facts


def pre_name(folder: Path, tokenizer: SourceTokenizer, given: str | None) -> tuple[str, str]:
    """llama.cpp's name of a pre-tokenizer, and how it was found.

    given    what the user says
    Raises   ExportError where a byte-level tokenizer's hash is not known
    """
    if given is not None:
        return given, "said by the user"
    if tokenizer.kind not in HASHED:
        return "default", "the kind of tokenizer"
    digest = original_hash(folder, tokenizer)
    name = known_pre_tokenizers()["names"].get(digest)
    if name is not None:
        return str(name), f"hash {digest}"
    if tokenizer.kind == "wordpiece":
        return "default", "the kind of tokenizer"
    known = known_pre_tokenizers()
    reason = (
        f"the hash of its tokenizer, {digest}, is none of the {len(known['names'])} that were known on {known['date']}"
        if digest
        else "slice.json does not say the hash of the source's tokenizer, and the source is not at hand"
    )
    raise ExportError(
        f"llama.cpp's name of this pre-tokenizer is not known: {reason}",
        "slice again with the source at hand, or pass --pre NAME with the name from llama.cpp's convert_hf_to_gguf_update.py",
    )


def _write(
    job: ExportJob,
    path: Path,
    family: GgufFamily,
    config: Mapping[str, Any],
    tokenizer: SourceTokenizer,
    auto: Any,
    precision: str,
    pre: str,
) -> tuple[list[GgufTensor], list[str]]:
    """Write a file ourselves; gives its tensors, and notes."""
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    tensors, notes = lay_out(job.checkpoint, family, config, precision)
    vocabulary = read_vocabulary(tokenizer, auto, config, pre)
    writer = GGUFWriter(path, family.architecture)
    try:
        writer.add_type("model")
        writer.add_name(job.name)
        writer.add_file_type(LlamaFileType[WRITTEN[precision]])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        write_metadata(writer, family, config, job.checkpoint.folder)
        write_vocabulary(writer, vocabulary, chat_template(auto))
        write_tensors(writer, tensors, job.checkpoint, config)
    finally:
        writer.close()
    if config.get("sliding_window") and not family.full_every:
        notes.append(
            f"llama.cpp lets tokens see more than the {config['sliding_window']:,} positions of the sliding window"
        )
    return tensors, [*notes, *vocabulary.notes]


def _auto(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _convert(converter: Path, folder: Path, path: Path, precision: str, pre: str) -> None:
    """Have llama.cpp's own converter write the file, with the pre-tokenizer's name said to it."""
    if not converter.is_file():
        raise ExportError(f"{converter}: no such file", "name llama.cpp's convert_hf_to_gguf.py")
    name = "" if pre == "default" else pre
    command = [
        sys.executable,
        "-c",
        _CONVERT,
        str(converter),
        name,
        str(folder),
        "--outfile",
        str(path),
        "--outtype",
        precision,
    ]
    _run(command, f"{converter.name} did not write the file")


def _quantise(plain: Path, path: Path, precision: str) -> Path:
    """Have llama-quantize write a file of another type, and remove the plain one."""
    _run(
        [str(shutil.which(QUANTIZE)), str(plain), str(path), precision.upper()], f"{QUANTIZE} did not write {precision}"
    )
    plain.unlink()
    return path


def _run(command: list[str], fault: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = "\n".join(f"  {line}" for line in (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:])
        raise ExportError(f"{fault}\n{last}")


def _write_modelfile(job: ExportJob, name: str, auto: Any) -> list[str]:
    """Write what Ollama reads; gives notes."""
    folder = job.checkpoint.model_folder
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    text, note = modelfile(name, auto, generation_ends(folder), settings)
    (job.staging / "Modelfile").write_text(text, encoding="utf-8")
    return [note] if note else []
