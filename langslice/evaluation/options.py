"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from langslice.errors import TaskError
from langslice.options import Entry, Options

DTYPES: Final = ("float32", "bfloat16", "float16")
# Lines that a task uses unless a limit is given: all of NTREX-128 would take hours.
LINES: Final = {"perplexity": 500, "bitext": 1000, "confusion": 100, "translation": 200}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """How to evaluate; every option is recorded in the results. `make_settings` reads codes, aliases and pairs."""

    error = TaskError

    tasks: Annotated[
        tuple[str, ...],
        Entry(
            "perplexity, xnli, marc, xcopa, belebele, FILE.yaml, sts, bitext, translation, rankc:TASK, confusion, speed, "
            "lm-eval:NAME; several with commas.",
            "NAMES",
            "-t",
            codes=True,
        ),
    ] = ("perplexity",)
    languages: Annotated[tuple[str, ...], Entry("BCP 47 codes: ko,en.", "CODES", "-l", codes=True)] = ()
    data: Annotated[
        str | Path | None, Entry("Folder of local data sets; else the package's sentences, and the hub.", "DIR")
    ] = None
    limit: Annotated[int | None, Entry("Most items of each task and language.", short="-n", least=1)] = None
    scores: Annotated[
        tuple[str, ...],
        Entry("Label scores: paper, sum, normalised, first_token, pmi, or all.", "NAMES", codes=True),
    ] = ()
    pairs: Annotated[
        tuple[str, ...],
        Entry("Directions of translation and bitext: ko-en,en-ko; every language into English unless given.", "PAIRS",
              codes=True),
    ] = ()  # fmt: skip
    shots: Annotated[int, Entry("Demonstrations in a translation prompt; 0 asks.", least=0)] = 4
    new_tokens: Annotated[int, Entry("Most tokens that the model writes.", least=1)] = 64
    separator: Annotated[
        str, Entry("What ends a line of a translation prompt; `eos` for the end-of-text token.", typed=False)
    ] = "\n"
    available: Annotated[bool, Entry("Leave out languages that a task has no data in, and say so.")] = False
    reference: Annotated[
        bool, Entry("Of RankC, also the figure that the code of Kim et al. 2024 computes.", typed=False)
    ] = False
    hub: Annotated[bool, Entry("Read parallel text from the hub (FLORES-200).")] = False
    rounds: Annotated[int, Entry("Rounds of the speed measurement.", least=1)] = 3
    device: Annotated[str, Entry("auto, cpu, cuda, cuda:1.")] = "auto"
    dtype: Annotated[str, Entry("float32, bfloat16 or float16.", values=DTYPES)] = "float32"
    trust_remote_code: Annotated[bool, Entry("Run the code that the models bring.")] = False
    resamples: Annotated[int, Entry("Resamples of the bootstrap.", least=100)] = 1000
    seed: Annotated[int, Entry("Seed of the bootstrap.")] = 0

    @property
    def folder(self) -> Path | None:
        """The data folder."""
        return None if self.data is None else Path(self.data).expanduser()

    def lines(self, task: str) -> int:
        """How many lines a task uses."""
        return self.limit if self.limit is not None else LINES[task]
