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

    seeds: Annotated[tuple[int, ...], Entry("Samples of the text to average over.", least=1, alone=True)] = (0, 1, 2)
    samples: Annotated[int, Entry("Lines of a sample, of each language.", least=1)] = 128
    max_tokens: Annotated[int, Entry("Longest line.", least=4)] = 128
    run: Annotated[int, Entry("Layers in a run (angular).", least=1)] = 1
    count: Annotated[
        int | None, Entry("Layers to remove one after another (perplexity); all unless given.", least=1)
    ] = None
    steps: Annotated[int, Entry("Steps of training (gates).", least=1)] = 100
    penalty: Annotated[float, Entry("Loss that one open gate costs (gates).", least=0)] = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        seeds = tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ScoreError(f"--seeds are {list(seeds)}; expected at least one, and no number twice")
        object.__setattr__(self, "seeds", seeds)


@dataclass(frozen=True, kw_only=True)
class ScoredText(Options):
    """What is scored, by which method, on what text."""

    kind: Annotated[str, Entry("What to score: layers, heads or neurons.", "KIND", argument=True)]
    method: Annotated[
        str,
        Entry(
            "layers: block-influence, angular, perplexity. heads: l1, l2, gradient, gates, lahis. "
            "neurons: l1, l2, activation, taylor, lape.",
            short="-m",
        ),
    ]
    texts: Annotated[
        str | Path | Sequence[str | Path] | Mapping[str, Sequence[str]],
        Entry("Text to measure on; ko=ko.txt scores a language by itself. May be repeated.", "[CODE=]PATH", "-t"),
    ] = ()
    text_field: TextField = "text"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(SourceOptions, ScoreSettings, ScoredText):
    """What is scored of which model, and how."""

    error = ScoreError
