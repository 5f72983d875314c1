"""Options of a fit: the budget, which axes may be cut, and how much is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from langslice.budgets.cut import KINDS
from langslice.errors import PlanError
from langslice.options import Choice, Entry, Options, Ray, SourceOptions, codes, declared, listed
from langslice.planning.options import CarryOptions, LossOptions, PlanOptions, RowOptions
from langslice.vocabulary.options import VocabularyOptions

AXES: Final = ("vocabulary", "layers", *KINDS)
# Where nothing is said: the search does not take hidden dimensions where that was measured, benchmarks/results/real/hidden_axis.md.
_USUAL: Final = tuple(name for name in AXES if name != "hidden")


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Options):
    """What the slice may take, at most."""

    error = PlanError
    group = "Budget"

    size: Annotated[
        int | str | None, Entry("Most bytes of the written weights: 150MB, 1.5GiB.", "SIZE", common=True)
    ] = None
    memory: Annotated[
        int | str | None, Entry("Most bytes of the weights in memory, in float32: 300MB.", "SIZE", common=True)
    ] = None
    latency: Annotated[
        float | str | None,
        Entry("Longest time to read a line, as a share of the original's: 0.5x.", "SHARE", common=True),
    ] = None
    max_loss: Annotated[
        float | None,
        Entry(
            "Write nothing that loses as much as this in any language: bits per byte; 1 - cosine for encoders.",
            "LOSS",
            above=0,
            common=True,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """What may be cut, and how much is tried."""

    error = PlanError
    group = "Search"

    axes: Annotated[
        str | Sequence[str],
        Entry(
            "What may be cut: vocabulary,layers,heads,neurons,experts,hidden. Default: all but hidden.",
            "NAMES",
            codes=True,
        ),
    ] = ()
    checks: Annotated[int, Entry("Combinations that are measured, the most promising first.", "N", least=1)] = 6
    measured: Annotated[
        str | Path | None,
        Entry("Folder of measured points, which several fits may share. Default: OUT/points.", "DIR"),
    ] = None
    ray: Ray = None


@dataclass(frozen=True, kw_only=True)
class AfterOptions(Options):
    """What happens to the slice afterwards."""

    error = PlanError
    group = "Training"

    heal: Annotated[
        int | None, Entry("Train the slice for so many steps, with MODEL as its teacher.", "STEPS", least=1)
    ] = None
    heal_corpus: Annotated[
        str | Path | Sequence[str | Path], Entry("Training text of --heal. Default: --corpus.", "PATH")
    ] = ()


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class FitOptions(
    SourceOptions, CarryOptions, RowOptions, AfterOptions, SearchOptions, BudgetOptions, LossOptions, VocabularyOptions
):
    """The budget, what may be cut, on what text that is measured, and what happens afterwards."""

    error = PlanError

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in codes(self.axes) if name not in AXES]
        if unknown:
            raise PlanError(f"--axes {unknown[0]}: no axis that is searched", f"one of {', '.join(AXES)}")
        if "vocabulary" in codes(self.axes) and listed(self.only_tokens):
            raise PlanError("--axes vocabulary: --only-tokens says exactly which tokens stay", "leave one of them out")
        if self.max_size is not None:
            raise PlanError("--max-size limits the vocabulary alone", "say --size: it is the budget of the whole slice")
        if self.heal is None and listed(self.heal_corpus):
            raise PlanError("--heal-corpus has no effect: nothing is trained", "add --heal 1000")
        if self.heal is not None and not listed(self.heal_corpus) and not listed(self.corpus):
            raise PlanError("--heal has no text to train on", "add --heal-corpus ko.txt")

    def choice(self) -> Choice:
        """What of this a plan is made from: its vocabulary, before anything is cut to the budget."""
        measuring = declared(LossOptions)
        return {
            name: value
            for name, value in self.given().items()
            if name in declared(PlanOptions) and (name not in measuring or name in ("loss_texts", "loss_lines"))
        }

    def searched(self) -> tuple[str, ...]:
        """The axes that may be cut; a vocabulary that is listed token by token is not."""
        asked = codes(self.axes) or _USUAL
        return tuple(name for name in AXES if name in asked and not (name == "vocabulary" and listed(self.only_tokens)))
