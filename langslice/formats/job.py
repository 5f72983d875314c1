"""What an export is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from langslice.formats.options import ExportOptions
from langslice.model.checkpoint import Checkpoint
from langslice.progress import Report


@dataclass(frozen=True)
class ExportJob:
    """One export.

    staging  folder that becomes the output
    name     of the output, and of the file in it
    texts    name -> text on which both are compared
    """

    checkpoint: Checkpoint
    staging: Path
    name: str
    options: ExportOptions
    texts: Mapping[str, Callable[[], Iterable[str]]]
    report: Report
