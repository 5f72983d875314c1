"""Options of a first recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from langslice.errors import LanguageError
from langslice.options import Entry, Options, SourceOptions
from langslice.recipes.purposes import PURPOSES


@dataclass(frozen=True, kw_only=True)
class KeptLanguages(Options):
    """What shall stay."""

    languages: Annotated[
        str | Sequence[str], Entry("Languages to keep, as BCP 47 codes: ko,en.", "CODES", "-l", codes=True)
    ]


@dataclass(frozen=True, kw_only=True)
class InitOptions(SourceOptions, KeptLanguages):
    """Of which model, what it is for, and what shall stay."""

    error = LanguageError
    purpose: Annotated[
        str | None,
        Entry(
            f"What the model is for: {', '.join(PURPOSES)}. Default: what its class says.",
            "PURPOSE", written="for", values=tuple(PURPOSES),
        ),
    ] = None  # fmt: skip
