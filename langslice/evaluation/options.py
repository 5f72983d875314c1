"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from langslice.errors import TaskError
from langslice.options import Entry, Options

DTYPES: Final = ("float32", "bfloat16", "float16")
# Lines that a task uses unless a limit is given: all of NTREX-128 would take hours.
LINES: Final = {"perplexity": 500, "bitext": 1000, "confusion": 100, "translation": 200, "translation_loss": 200}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """How to evaluate; every option is recorded in the results. `make_settings` reads codes, aliases and pairs."""

    error = TaskError
    group = "Tasks and statistics"

    tasks: Annotated[
        tuple[str, ...],
        Entry(
            "Tasks: perplexity, xnli, marc, xcopa, belebele, FILE.yaml, sts, bitext, translation, translation_loss, rankc:TASK, "
            "confusion, speed, lm-eval:NAME.",
            "NAMES",
            "-t",
            codes=True,
            common=True,
        ),
    ] = ("perplexity",)
    languages: Annotated[
        tuple[str, ...], Entry("Languages to evaluate, as BCP 47 codes: ko,en.", "CODES", "-l", codes=True, common=True)
    ] = ()
    data: Annotated[
        str | Path | None,
        Entry("Folder of local data sets. Default: the sentences of the package, and the hub.", "DIR", common=True),
    ] = None
    limit: Annotated[
        int | None, Entry("Maximum number of items per task and language.", "N", "-n", least=1, common=True)
    ] = None
    scores: Annotated[
        tuple[str, ...],
        Entry(
            "Label scores: paper, sum, normalised, first_token, pmi, or all.",
            "NAMES",
            codes=True,
            named="label_scores",
            was=("scores",),
        ),
    ] = ()
    pairs: Annotated[
        tuple[str, ...],
        Entry("Language pairs of translation and bitext: ko-en,en-ko. Default: every language into English.", "PAIRS",
              codes=True),
    ] = ()  # fmt: skip
    shots: Annotated[
        int, Entry("Demonstrations per translation prompt; 0 for an instruction instead.", "N", least=0)
    ] = 4
    new_tokens: Annotated[int, Entry("Max new tokens per translation.", "N", least=1)] = 64
    separator: Annotated[
        str, Entry("What ends a line of a translation prompt; `eos` for the end-of-text token.", typed=False)
    ] = "\n"
    available: Annotated[bool, Entry("Skip the languages that a task has no data in, and report them.")] = False
    reference: Annotated[
        bool, Entry("Of RankC, also the figure that the code of Kim et al. 2024 computes.", typed=False)
    ] = False
    hub: Annotated[bool, Entry("Read parallel text from the hub (FLORES-200).")] = False
    rounds: Annotated[int, Entry("Rounds of the speed measurement.", "N", least=1)] = 3
    device: Annotated[str, Entry("Device: auto, cpu, cuda, cuda:1.", "DEVICE", common=True)] = "auto"
    dtype: Annotated[
        str, Entry("Compute dtype: float32, bfloat16 or float16.", "DTYPE", values=DTYPES, common=True)
    ] = "float32"
    trust_remote_code: Annotated[bool, Entry("Run the code in the model folders.")] = False
    resamples: Annotated[int, Entry("Bootstrap resamples.", "N", least=100)] = 1000
    seed: Annotated[int, Entry("Bootstrap seed.", "N")] = 0

    @property
    def folder(self) -> Path | None:
        """The data folder."""
        return None if self.data is None else Path(self.data).expanduser()

    def lines(self, task: str) -> int:
        """How many lines a task uses."""
        return self.limit if self.limit is not None else LINES[task]
