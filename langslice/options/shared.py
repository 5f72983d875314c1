"""Options that several rooms have, declared once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from langslice.options.declaration import Entry, Options

Corpus = Annotated[
    str | Path | Sequence[str | Path],
    Entry("Text to count: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset.", "PATH", "-c"),
]
Revision = Annotated[str | None, Entry("Branch, tag or commit of a hub model.", "NAME")]
TextField = Annotated[str, Entry("Field of jsonl and parquet records that holds the text.", "NAME")]
HeldOut = Annotated[str | Path | Sequence[str | Path], Entry("Held-out text to prove the result on.", "PATH")]
Verify = Annotated[bool, Entry("Prove the result, or only write.")]
Threads = Annotated[int, Entry("Threads that write.", least=1)]
Ray = Annotated[str | None, Entry("Use this Ray cluster: auto, host:port, ray://…, or local.", "ADDRESS")]
Processes = Annotated[int | None, Entry("Processes that count; all cores unless given.", "N", least=1)]


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """Which version of a model on the hub, and how to get at it."""

    revision: Revision = None
    token: Annotated[str | None, Entry("Hub token, for gated models.", "TOKEN")] = None
    cache_dir: Annotated[str | Path | None, Entry("Hub cache.", "DIR")] = None

    def source(self) -> dict[str, Any]:
        """These three alone, as `open_checkpoint` takes them."""
        cache = None if self.cache_dir is None else Path(self.cache_dir)
        return {"revision": self.revision, "token": self.token, "cache_dir": cache}


@dataclass(frozen=True, kw_only=True)
class VerificationOptions(Options):
    """How a result is proven."""

    text: HeldOut = ()
    verify: Verify = True
