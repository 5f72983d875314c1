"""Options of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import ExportError
from langslice.options import Entry, Options, VerificationOptions

DRAFT = "draft"
FORMATS = ("gguf", "onnx", DRAFT)


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
class DraftHeadOptions(Options):
    """Which tokens a reduced output head has."""

    error = ExportError
    group = "Draft head"

    draft_vocabulary: Annotated[
        int | None,
        Entry(
            "Write an output head over the N most used tokens, with the map of EAGLE-3: d2t and t2d.",
            "N",
            least=1,
            common=True,
        ),
    ] = None
    languages: Annotated[
        str | Sequence[str],
        Entry(
            "Languages whose tokens are ranked. Default: those that the slice was made for.", "CODES", "-l", codes=True
        ),
    ] = ()
    counts: Annotated[
        str | Sequence[str],
        Entry("Token counts made by `langslice count`, ranked too; FILE=0.5 weights them.", "FILE"),
    ] = ()
    target: Annotated[
        str | Path | None, Entry("Of an EAGLE-3 draft: the model that it drafts for, whose tokenizer ranks.", "MODEL")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExportOptions(VerificationOptions, DraftHeadOptions, GgufOptions):
    """Into which format, and how the result is verified."""

    error = ExportError

    to: Annotated[
        str | None,
        Entry(
            "Format to write: gguf, onnx, or draft, which --draft-vocabulary alone says too. Default: gguf.",
            "TARGET",
            values=FORMATS,
            common=True,
        ),
    ] = None

    @property
    def format(self) -> str:
        """What is written."""
        return self.to or ("gguf" if self.draft_vocabulary is None else DRAFT)
