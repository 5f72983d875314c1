"""Options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import ExportError
from langslice.options import Entry, Options, VerificationOptions

FORMATS = ("gguf", "onnx")


@dataclass(frozen=True, kw_only=True)
class GgufOptions(Options):
    """What only a GGUF file has."""

    group = "GGUF"

    precision: Annotated[
        str,
        Entry(
            "Type of the weights: f32, f16, bf16, q8_0, or another of llama.cpp, which needs llama-quantize.",
            "TYPE",
            common=True,
        ),
    ] = "f16"
    pre: Annotated[str | None, Entry("llama.cpp's name of the pre-tokenizer, where its hash is not known.", "NAME")] = (
        None
    )
    converter: Annotated[
        str | Path | None,
        Entry("Write through this convert_hf_to_gguf.py of llama.cpp instead of the writer of langslice.", "PATH"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExportOptions(VerificationOptions, GgufOptions):
    """Into which format, and how the result is verified."""

    error = ExportError

    to: Annotated[str, Entry("Format to write: gguf or onnx.", "TARGET", values=FORMATS, common=True)] = "gguf"
