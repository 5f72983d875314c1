"""Options of the main job, in addition to those of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from langslice.errors import CorpusError, PlanError, PublishError
from langslice.options import (
    Corpus,
    Entry,
    HeldOut,
    Options,
    Processes,
    Ray,
    SourceOptions,
    TextField,
    Threads,
    VerificationOptions,
    VerifyLevel,
)
from langslice.planning.options import CarryOptions, PlanOptions
from langslice.structure.options import PartOptions


@dataclass(frozen=True, kw_only=True)
class WriteOptions(Options):
    """How a slice is written."""

    group = "Output"

    link: Annotated[bool, Entry("Hard-link unchanged shards instead of copying them.")] = False
    threads: Threads = 2
    ray: Ray = None


@dataclass(frozen=True, kw_only=True)
class SliceVerificationOptions(VerificationOptions):
    """How a slice is proven."""

    group = "Verification"

    verify_level: VerifyLevel = "full"


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class SliceOptions(WriteOptions, SliceVerificationOptions, PlanOptions):
    """What to keep, of which source, how it is proven and written."""

    error = PlanError


@dataclass(frozen=True, kw_only=True)
class MaskOptions(SliceVerificationOptions, SourceOptions, CarryOptions, PartOptions):
    """Which heads and neurons become zero; no other cut can be told from the source by its shapes alone."""

    error = PlanError


@dataclass(frozen=True, kw_only=True)
class LanguageSets(Options):
    """What would be kept."""

    languages: Annotated[
        str | Sequence[str],
        Entry("Set of languages to compute savings for: ko,en. May be repeated.", "CODES", "-l"),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class InspectOptions(SourceOptions, LanguageSets):
    """Of which model, and what would be kept of it."""


@dataclass(frozen=True, kw_only=True)
class VerificationText(Options):
    """Text beside that which a plan names."""

    text: HeldOut = ()


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(SourceOptions, VerificationText):
    """Of which source, and on what text beside that which the plan names."""


@dataclass(frozen=True, kw_only=True)
class CountedText(Options):
    """What is counted, and by whom."""

    corpus: Corpus
    text_field: TextField = "text"
    languages: Annotated[
        str | Sequence[str],
        Entry(
            "Count only the lines in these languages: ko,en (needs lingua).",
            "CODES",
            "-l",
            codes=True,
            was=("language_id",),
        ),
    ] = ()
    processes: Processes = None
    ray: Ray = None


@dataclass(frozen=True, kw_only=True)
class CountOptions(SourceOptions, CountedText):
    """Which model's tokens are counted, and in what."""

    error = CorpusError


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """What is published, and where."""

    error = PublishError

    private: Annotated[bool, Entry("Create a private repository.")] = False
    revision: Annotated[str | None, Entry("Branch to upload to. Default: main.", "BRANCH")] = None
    token: Annotated[
        str | None, Entry("Hub token, for gated models. Default: the one of `hf auth login`.", "TOKEN")
    ] = None
    create: Annotated[bool, Entry("Create the repository if it does not exist.")] = True
    message: Annotated[str | None, Entry("Commit message.", "TEXT")] = None
    include: Annotated[
        str | Sequence[str], Entry("Also upload files that langslice did not write and that match.", "GLOB")
    ] = ()
    leave_out: Annotated[str | Sequence[str], Entry("Leave out files that match.", "GLOB")] = ()
    unproven: Annotated[
        bool, Entry("Publish a slice that was not verified, or that failed.", named="unverified", was=("unproven",))
    ] = False
