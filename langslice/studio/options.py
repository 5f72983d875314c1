"""Options of the studio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import OptionError
from langslice.options import Entry, Options


@dataclass(frozen=True, kw_only=True)
class StudioOptions(Options):
    """Where the pages are served, to whom, and where jobs work."""

    error = OptionError

    work: Annotated[
        str | Path, Entry("Folder of jobs and their results; they are there again when it is opened again.", "DIR")
    ] = "langslice-studio"
    port: Annotated[int, Entry("Port to listen on; 0 takes a free one.", "N", least=0, most=65535)] = 7860
    bind: Annotated[str, Entry("Address to listen on. Any but a loopback address needs --name.", "ADDRESS")] = (
        "127.0.0.1"
    )
    name: Annotated[
        str | Sequence[str],
        Entry(
            "Host name that the pages are reached by, beside localhost: me-langslice.hf.space. May be repeated.", "HOST"
        ),
    ] = ()
    framed_by: Annotated[
        str | Sequence[str],
        Entry("Site that may show the pages inside of its own: https://huggingface.co. May be repeated.", "ORIGIN"),
    ] = ()
