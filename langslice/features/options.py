"""Options of the feature analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import PlanError
from langslice.options import Entry, Options, SourceOptions


@dataclass(frozen=True, kw_only=True)
class Compared(Options):
    """Sets of demonstrations, and what is measured of them."""

    demos: Annotated[
        str | Sequence[str],
        Entry("Demonstrations of what is looked for, such as translation. NAME=FILE names them.", "FILE"),
    ] = ()
    against: Annotated[
        str | Sequence[str], Entry("Demonstrations of everything else, such as each language alone.", "FILE")
    ] = ()
    top: Annotated[int, Entry("Bars for each layer.", least=1)] = 20
    share: Annotated[float, Entry("Share of the dimensions that count as large, and as small.", above=0, most=0.5)] = (
        0.4
    )
    ablate: Annotated[bool, Entry("Zero the dimensions found, others, and random ones, and compare the loss.")] = False
    stand_out: Annotated[
        int | None,
        Entry("Instead of those small in every other set: so many of each layer that stand out most.", least=1),
    ] = None
    ablation_count: Annotated[int, Entry("Demonstrations of each set for --ablate.", least=1)] = 20
    translate: Annotated[
        int | None,
        Entry(
            "With --ablate: also translate so many held-out lines of each pair, and compare BLEU and chrF++.", least=1
        ),
    ] = None
    pairs: Annotated[
        str | Sequence[str],
        Entry("For --translate: fr-en,es-en; else the languages of --demos.", "PAIRS", codes=True),
    ] = ()
    data: Annotated[
        str | Path | None, Entry("For --translate: folder of NTREX-128 or FLORES-200; else the package's lines.", "DIR")
    ] = None
    shots: Annotated[int, Entry("For --translate: demonstrations in a prompt; 0 asks.", least=0)] = 4
    new_tokens: Annotated[int, Entry("For --translate: most tokens that the model writes.", least=1)] = 64
    max_tokens: Annotated[int, Entry("Longest demonstration.", least=1)] = 512
    offload: Annotated[bool, Entry("Keep activations on disk, not in memory.")] = False
    pictures: Annotated[bool, Entry("Draw PNG files.")] = True


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(SourceOptions, Compared):
    """Of which model, and what is compared."""

    error = PlanError
