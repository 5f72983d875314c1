"""Options of a trade-off, in addition to those of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Choice, Entry, Options, SourceOptions, declared
from langslice.planning.options import LossOptions, PlanOptions, RowOptions
from langslice.vocabulary.options import VocabularyOptions

ORDERS: Final = ("both", "frequency", "expected-loss")


@dataclass(frozen=True, kw_only=True)
class LadderOptions(Options):
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
    drop_by: Annotated[
        str,
        Entry(
            "Which tokens are dropped first: by frequency, expected-loss (frequency times loss), or both.",
            values=ORDERS,
        ),
    ] = "frequency"


# Fields stand in the order of the classes from the last to the first.
@dataclass(frozen=True, kw_only=True)
class TradeoffOptions(SourceOptions, RowOptions, LossOptions, LadderOptions, VocabularyOptions):
    """Which vocabulary is made smaller, by how much, and on what text its loss is measured."""

    error = PlanError

    def choice(self) -> Choice:
        """What of this a plan is made from."""
        return {name: value for name, value in self.given().items() if name in declared(PlanOptions)}
