"""Options of the feature analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import PlanError
from langslice.options import Entry, Options, SourceOptions
from langslice.steering.options import SteeringOptions


@dataclass(frozen=True, kw_only=True)
class Compared(Options):
    """Sets of demonstrations, and what is measured of them."""

    demos: Annotated[
        str | Sequence[str],
        Entry("Demonstrations of the ability of interest, such as translation. NAME=FILE names them.", "FILE"),
    ] = ()
    against: Annotated[
        str | Sequence[str], Entry("Demonstrations to compare with, such as each language alone.", "FILE")
    ] = ()
    top: Annotated[int, Entry("Bars per layer in the pictures.", "N", least=1)] = 20
    share: Annotated[
        float, Entry("Share of the dimensions that count as large, and as small.", "SHARE", above=0, most=0.5)
    ] = 0.4
    ablate: Annotated[bool, Entry("Zero the dimensions found, other ones, and random ones, and compare the loss.")] = (
        False
    )
    stand_out: Annotated[
        int | None,
        Entry(
            "Take the N dimensions per layer that stand out most, not those that are small in every other set.",
            "N",
            least=1,
        ),
    ] = None
    ablation_count: Annotated[int, Entry("Demonstrations per set for --ablate.", "N", least=1)] = 20
    translate: Annotated[
        int | None,
        Entry("With --ablate: also translate N held-out lines per pair, and compare BLEU and chrF++.", "N", least=1),
    ] = None
    pairs: Annotated[
        str | Sequence[str],
        Entry("Language pairs for --translate: fr-en,es-en. Default: the languages of --demos.", "PAIRS", codes=True),
    ] = ()
    data: Annotated[
        str | Path | None,
        Entry(
            "Folder of NTREX-128 or FLORES-200 for --translate and --steer. Default: the sentences of the package.",
            "DIR",
        ),
    ] = None
    shots: Annotated[
        int, Entry("Demonstrations per translation prompt; 0 for an instruction instead.", "N", least=0)
    ] = 4
    new_tokens: Annotated[int, Entry("Max new tokens per translation.", "N", least=1)] = 64
    max_tokens: Annotated[
        int, Entry("Sequence length; longer ones are truncated.", "N", least=1, named="seq_length", was=("max_tokens",))
    ] = 512
    offload: Annotated[bool, Entry("Keep activations on disk, not in memory.")] = False
    pictures: Annotated[bool, Entry("Draw PNG files.")] = True


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(SourceOptions, SteeringOptions, Compared):
    """Of which model, what is compared, and what is steered to."""

    error = PlanError
