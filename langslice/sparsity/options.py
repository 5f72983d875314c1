"""Options of weight pruning: how many weights become zero, which, and by which criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Entry, Options

SCORES: Final = ("wanda", "mwanda", "magnitude", "random", "top", "sparsegpt")
COMPUTE: Final = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class WeightOptions(Options):
    """How many weights become zero, and which; none unless a sparsity or a pattern is given."""

    error = PlanError
    group = "Weights"

    sparsity: Annotated[
        float | None,
        Entry("Share of the weights of each linear layer to set to zero: 0.3.", "SHARE", least=0, most=1, common=True),
    ] = None
    pattern: Annotated[str | None, Entry("N:M sparsity: N of every M consecutive weights become zero: 2:4.", "N:M")] = (
        None
    )
    keep_demos: Annotated[
        str | Sequence[str], Entry("Calibration data to prune for, made by `langslice demonstrations`.", "FILE")
    ] = ()
    avoid_demos: Annotated[
        str | Sequence[str],
        Entry("Calibration data whose activations count against a weight, such as source code.", "FILE"),
    ] = ()
    score: Annotated[
        str | None,
        Entry(
            "Pruning method: wanda, mwanda, magnitude, random, top or sparsegpt. Default: wanda.",
            "NAME",
            values=SCORES,
            named="weights_by",
            was=("score",),
        ),
    ] = None
    epsilon: Annotated[
        float | None, Entry("Added to the denominator of the keep/avoid ratio. Default: 1e-6.", "NUMBER", least=0)
    ] = None
    allocation: Annotated[
        str | None,
        Entry(
            'Sparsity per layer: uniform, outliers, languages, or shares by pattern: "*.mlp.*=0.4". Default: uniform.',
            "HOW",
        ),
    ] = None
    linears: Annotated[
        str | Sequence[str],
        Entry('Linear layers to prune: "*.mlp.*"; "!*.0.*" excludes some. Default: all.', "PATTERN"),
    ] = ()
    offload: Annotated[bool, Entry("Keep activations on disk, not in memory.")] = False
    compute: Annotated[
        str | None,
        Entry(
            "Compute dtype: float32 or bfloat16; the weights keep theirs. Default: float32.",
            "DTYPE",
            values=COMPUTE,
            named="dtype",
            was=("compute",),
        ),
    ] = None
