"""Options of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from langslice.errors import ScoreError
from langslice.options import Entry, Options, SourceOptions, TextField


@dataclass(frozen=True)
class ScoreSettings(Options):
    """How scores are measured; `seeds` is held as a tuple: a number asks for so many from 0."""

    error = ScoreError

    seeds: Annotated[
        tuple[int, ...], Entry("Number of random samples of the text to average over.", "N", least=1, alone=True)
    ] = (0, 1, 2)
    samples: Annotated[int, Entry("Lines per sample and language.", "N", least=1)] = 128
    max_tokens: Annotated[
        int, Entry("Sequence length; longer ones are truncated.", "N", least=4, named="seq_length", was=("max_tokens",))
    ] = 128
    run: Annotated[int, Entry("Length of the runs of layers (angular).", "N", least=1)] = 1
    count: Annotated[
        int | None,
        Entry(
            "Number of layers to remove one after the other (perplexity). Default: all.",
            "N",
            least=1,
            named="removals",
            was=("count",),
        ),
    ] = None
    steps: Annotated[int, Entry("Training steps (gates).", "N", least=1)] = 100
    penalty: Annotated[float, Entry("L0 penalty per open gate (gates).", "NUMBER", least=0)] = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        seeds = tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ScoreError(f"--seeds are {list(seeds)}; expected at least one, and no number twice")
        object.__setattr__(self, "seeds", seeds)


@dataclass(frozen=True, kw_only=True)
class ScoredText(Options):
    """What is scored, by which method, on what text."""

    kind: Annotated[str, Entry("What is scored: layers, heads, neurons or experts.", "KIND", argument=True)]
    method: Annotated[
        str | None,
        Entry(
            "layers: block-influence, angular, perplexity. heads: l1, l2, gradient, gates, lahis. "
            "neurons: l1, l2, activation, taylor, lape. experts: routed. Default: block-influence, gradient, taylor, routed; "
            "without --calibration l1 for heads, l2 for neurons.",
            metavar="NAME",
            short="-m",
        ),
    ] = None
    texts: Annotated[
        str | Path | Sequence[str | Path] | Mapping[str, Sequence[str]],
        Entry(
            "Calibration text that scores are measured on; ko=ko.txt states its language. May be repeated.",
            "[CODE=]PATH",
            named="calibration",
            was=("texts",),
        ),
    ] = ()
    text_field: TextField = "text"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(SourceOptions, ScoreSettings, ScoredText):
    """What is scored of which model, and how."""

    error = ScoreError
