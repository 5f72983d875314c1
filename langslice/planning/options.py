"""Options of a plan: those of vocabulary, structure and weights, and what happens to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import PlanError
from langslice.options import Choice, Entry, Options, Processes, SourceOptions, declared
from langslice.sparsity.options import WeightOptions
from langslice.structure.options import StructureOptions
from langslice.vocabulary.options import ExtensionOptions, VocabularyOptions


@dataclass(frozen=True, kw_only=True)
class CarryOptions(Options):
    """What becomes of files that langslice does not know."""

    error = PlanError
    group = "Output"

    carry: Annotated[str | Sequence[str], Entry("Copy unknown files that match.", "GLOB")] = ()
    leave_out: Annotated[str | Sequence[str], Entry("Leave out unknown files that match.", "GLOB")] = ()


@dataclass(frozen=True, kw_only=True)
class RowOptions(Options):
    """What becomes of rows and fields that nothing else decides."""

    error = PlanError
    group = "Vocabulary"

    pad_to_multiple_of: Annotated[
        int | None, Entry("Pad the vocabulary size to a multiple of N, for tensor cores: 64.", "N", least=1)
    ] = None
    ignore_field: Annotated[
        str | Sequence[str],
        Entry("Configuration field that holds no token ids, although its name suggests it.", "NAME"),
    ] = ()
    processes: Processes = None


@dataclass(frozen=True, kw_only=True)
class LossOptions(Options):
    """What a smaller vocabulary may cost, and on what text that is measured."""

    error = PlanError
    group = "Vocabulary"

    max_loss: Annotated[
        float | None,
        Entry(
            "Keep the smallest vocabulary that loses less than this in every language: bits per byte; 1 - cosine for encoders.",
            "LOSS",
            above=0,
        ),
    ] = None
    loss_texts: Annotated[
        str | Path | Sequence[str | Path] | Mapping[str, Sequence[str]],
        Entry("Text that the loss is measured on: ko=ko.txt. Default: the sentences of the package.", "CODE=PATH"),
    ] = ()
    loss_lines: Annotated[int, Entry("Lines per language that the loss is measured on.", "N", least=2)] = 100


@dataclass(frozen=True, kw_only=True)
class DraftOptions(Options):
    """Whose vocabulary a draft model follows."""

    error = PlanError
    group = "Vocabulary"

    like: Annotated[
        str | Path | None,
        Entry("For an EAGLE-3 draft: the slice of its target, whose vocabulary it is to fit.", "SLICE"),
    ] = None


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class PlanOptions(
    SourceOptions,
    CarryOptions,
    RowOptions,
    LossOptions,
    DraftOptions,
    WeightOptions,
    StructureOptions,
    ExtensionOptions,
    VocabularyOptions,
):
    """What to keep, and of which source. Every option is optional and combines with the others."""

    error = PlanError

    def choice(self) -> Choice:
        """What of this was asked; not what a plan does not depend on, such as `verify`."""
        return {name: value for name, value in self.given().items() if name in declared(PlanOptions)}
