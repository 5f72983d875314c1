"""Options of a trade-off, in addition to those of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Choice, Entry, Options, SourceOptions, codes, declared
from langslice.planning.options import CarryOptions, LossOptions, PlanOptions, RowOptions
from langslice.structure.options import StructureOptions
from langslice.vocabulary.options import VocabularyOptions

ORDERS: Final = ("both", "frequency", "expected-loss")


@dataclass(frozen=True, kw_only=True)
class SizeOptions(Options):
    """Which sizes are tried."""

    error = PlanError

    sizes: Annotated[
        str | Sequence[int | str],
        Entry(
            "Vocabulary sizes to try: 96000,64000. Default: six, from the whole choice downwards.",
            "ROWS",
            codes=True,
        ),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes_of(self.sizes)


@dataclass(frozen=True, kw_only=True)
class LadderOptions(SizeOptions):
    """Which sizes are tried, and what they drop first."""

    error = PlanError

    drop_by: Annotated[
        str,
        Entry(
            "Which tokens are dropped first: by frequency, expected-loss (frequency times loss), or both.",
            values=ORDERS,
        ),
    ] = "frequency"


def sizes_of(asked: str | Sequence[int | str]) -> list[int]:
    """The sizes that are asked for, as numbers of rows. Raises PlanError for what is no size."""
    named = codes(asked if isinstance(asked, str) else [str(one) for one in asked])
    try:
        sizes = [int(one) for one in named]
    except ValueError as error:
        raise PlanError(f"--sizes {asked} are no sizes", hint="write 96000,64000") from error
    if sizes and min(sizes) < 1:
        raise PlanError(f"--sizes has {min(sizes)}, and a vocabulary at least 1 row", hint="write 96000,64000")
    return sizes


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class TradeoffOptions(SourceOptions, RowOptions, LossOptions, LadderOptions, VocabularyOptions):
    """Which vocabulary is made smaller, by how much, and on what text its loss is measured."""

    error = PlanError

    def choice(self) -> Choice:
        """What of this a plan is made from."""
        return {name: value for name, value in self.given().items() if name in declared(PlanOptions)}


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class TrialOptions(SourceOptions, CarryOptions, RowOptions, SizeOptions, StructureOptions, VocabularyOptions):
    """Which slices read a text."""

    error = PlanError

    def choice(self) -> Choice:
        """What of this a plan is made from."""
        return {name: value for name, value in self.given().items() if name in declared(PlanOptions)}
