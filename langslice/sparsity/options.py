"""Options of weight pruning: how many become zero, which, and on which calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from langslice.errors import PlanError
from langslice.options import Entry, Options

SCORES: Final = ("wanda", "magnitude", "random", "top", "sparsegpt")
COMPUTE: Final = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class WeightOptions(Options):
    """How many weights become zero, and which; none unless a sparsity or a pattern is given."""

    error = PlanError

    sparsity: Annotated[
        float | None, Entry("Share of the weights of each linear layer to set to zero: 0.3.", "SHARE", least=0, most=1)
    ] = None
    pattern: Annotated[str | None, Entry("N:M zeroes N of every M inputs of an output: 2:4.", "N:M")] = None
    keep_demos: Annotated[
        str | Sequence[str], Entry("Demonstrations that weights are kept for (`langslice demonstrations`).", "FILE")
    ] = ()
    avoid_demos: Annotated[
        str | Sequence[str], Entry("Demonstrations that count against a weight, such as code.", "FILE")
    ] = ()
    score: Annotated[
        str | None, Entry("wanda, magnitude, random, top or sparsegpt; wanda unless given.", "NAME", values=SCORES)
    ] = None
    epsilon: Annotated[float | None, Entry("Added to what --avoid-demos divide by: 1e-6.", "NUMBER", least=0)] = None
    allocation: Annotated[str | None, Entry('uniform, outliers, or shares by pattern: "*.mlp.*=0.4".', "HOW")] = None
    linears: Annotated[
        str | Sequence[str], Entry('Linear layers to prune: "*.mlp.*"; "!*.0.*" leaves some out.', "PATTERN")
    ] = ()
    offload: Annotated[bool, Entry("Keep activations on disk while weights are pruned.")] = False
    compute: Annotated[
        str | None,
        Entry(
            "Type of matrix products while weights are pruned: float32, or bfloat16, faster on processors that have it.",
            "TYPE",
            values=COMPUTE,
        ),
    ] = None
