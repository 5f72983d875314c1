"""Options that several rooms have, declared once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from langslice.options.declaration import Entry, Options

Corpus = Annotated[
    str | Path | Sequence[str | Path],
    Entry(
        "Text whose tokens are counted: txt, jsonl, parquet, .gz, .zst, a folder, a glob, or a hub dataset.",
        "PATH",
        "-c",
        common=True,
    ),
]
Revision = Annotated[str | None, Entry("Branch, tag or commit of a model on the hub.", "NAME")]
TextField = Annotated[str, Entry("Text field of jsonl and parquet records.", "NAME")]
HeldOut = Annotated[
    str | Path | Sequence[str | Path], Entry("Held-out text on which source and slice are compared.", "PATH")
]
Verify = Annotated[bool, Entry("Verify the result against the source before writing it to OUT.")]
VerifyLevel = Annotated[
    str,
    Entry(
        "Checks of the verification: full, or quick, which loads no model and not the libraries that would.",
        "LEVEL",
        values=("full", "quick"),
    ),
]
Threads = Annotated[int, Entry("Writer threads.", "N", least=1)]
Ray = Annotated[str | None, Entry("Ray cluster to use: auto, host:port, ray://host:port, or local.", "ADDRESS")]
Processes = Annotated[int | None, Entry("Counting processes. Default: one per core.", "N", least=1)]


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """Which version of a model on the hub, and how to get at it."""

    group = "Source"

    revision: Revision = None
    token: Annotated[
        str | None, Entry("Hub token, for gated models. Default: the one of `hf auth login`.", "TOKEN")
    ] = None
    cache_dir: Annotated[str | Path | None, Entry("Hub cache folder.", "DIR")] = None
    trust_remote_code: Annotated[
        bool, Entry("Run the modeling code in the model folder, for a type that transformers does not have.")
    ] = False

    def source(self) -> dict[str, Any]:
        """These alone, as `open_checkpoint` takes them."""
        cache = None if self.cache_dir is None else Path(self.cache_dir)
        return {
            "revision": self.revision, "token": self.token, "cache_dir": cache, "trust_remote_code": self.trust_remote_code,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VerificationOptions(Options):
    """How a result is proven."""

    group = "Verification"

    text: HeldOut = ()
    verify: Verify = True
