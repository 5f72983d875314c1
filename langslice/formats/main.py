"""Write a slice, or any checkpoint, in another format, and compare the result with what it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langslice.errors import ExportError, VerificationError
from langslice.files.atomic_output import check_output, staging_folder
from langslice.formats.job import ExportJob, comparison_texts
from langslice.formats.options import DRAFT, ExportOptions
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.model.draft_head import is_draft
from langslice.options import listed, taking
from langslice.progress import Report, silent
from langslice.verification.check import Check
from langslice.verification.file_names import FILE_NAME
from langslice.verification.record import installed_versions, read_record
from langslice.version import __version__

RECORD = "export.json"
_LIBRARIES = ("gguf", "xllamacpp", "onnx", "onnxruntime", "transformers", "torch")


@dataclass(frozen=True)
class Exported:
    """What `export` made.

    out      the folder
    files    name -> bytes
    checks   what was compared; empty with `verify=False`
    notes    what a user should know
    """

    out: Path
    files: Mapping[str, int]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


@taking(ExportOptions)
def export(
    folder: str | Path, out: str | Path, *, options: ExportOptions, overwrite: bool = False, report: Report = silent
) -> Exported:
    """Write a slice in another format, and compare the result with the slice.

    folder     a slice, or any model folder
    out        folder to make; nothing appears there before the result is written and compared
    options    see ExportOptions
    overwrite  replace an existing `out`
    Raises     ExportError for a model that the format cannot hold, or a missing library; VerificationError where the result
               differs; CheckpointError, TokenizerError, OutputError
    """
    from langslice.formats.draft_vocabulary import write_draft
    from langslice.formats.gguf_file import write_gguf
    from langslice.formats.onnx_file import write_onnx

    out = Path(out)
    checkpoint = open_checkpoint(folder)
    check_output(out, source=checkpoint.folder, overwrite=overwrite)
    if is_draft(checkpoint.config) and options.format != DRAFT:
        raise ExportError(
            f"{folder} is a draft model, which langslice does not write as {options.format}",
            "llama.cpp's converter does: convert_hf_to_gguf.py DRAFT --target-model-dir TARGET",
        )
    request = read_record(checkpoint.folder).request if (checkpoint.folder / FILE_NAME).is_file() else {}
    languages = options.languages or request.get("languages")
    texts = comparison_texts({**request, "languages": languages}, listed(options.text))
    with staging_folder(out, source=checkpoint.folder, overwrite=overwrite) as staging:
        write = {"gguf": write_gguf, "onnx": write_onnx, DRAFT: write_draft}[options.format]
        checks, notes, facts = write(ExportJob(checkpoint, staging, out.name, options, texts, report, request))
        failed = [check for check in checks if check.passed is False]
        if failed:
            raise VerificationError(
                "\n".join([f"{out} was not written: it differs from {folder}", *map(_told, failed)])
            )
        _write_record(staging, checkpoint, facts, checks)
        files = {
            path.relative_to(staging).as_posix(): path.stat().st_size
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
    return Exported(out, files, tuple(checks), tuple(notes))


def _told(check: Check) -> str:
    return "\n    ".join([f"  {check.name}: {check.detail}", *check.examples[:3]])


def _write_record(folder: Path, checkpoint: Checkpoint, facts: Mapping[str, Any], checks: Iterable[Check]) -> None:
    """What was written, from what, by what, and how it compares."""
    document = {
        "format": "langslice-export/1",
        "model": checkpoint.model_id,
        **facts,
        "checks": [asdict(check) for check in checks],
        "versions": {"langslice": __version__, **installed_versions(_LIBRARIES)},
    }
    (folder / RECORD).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
