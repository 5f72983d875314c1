"""What a user asks of weight pruning, checked before any work begins."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from langslice.demonstrations.demonstration import Demonstration
from langslice.errors import PlanError
from langslice.options import Declared, Entry, declared, flag
from langslice.options.values import is_json, misfit
from langslice.sparsity.options import COMPUTE, SCORES, WeightOptions

# Scores that look at activations, and therefore at calibration data.
CALIBRATED = ("wanda", "mwanda", "top", "sparsegpt")
# The allocation that compares languages; the score "mwanda" does too.
LANGUAGES = "languages"
NAMED_ALLOCATIONS = ("uniform", "outliers", LANGUAGES)
UNSTRUCTURED = "unstructured"


@dataclass(frozen=True)
class SparsityRequest:
    """How many weights become zero, which, and by which criteria. Each entry is a command-line option of the same name.

    sparsity       share of the weights of each chosen linear layer, 0 < sparsity < 1; may be left out with an N:M pattern
    pattern        "unstructured", or "N:M": in every M consecutive inputs of an output row, N weights become zero
    keep_demos     jsonl files of demonstrations, or demonstrations, whose inputs count as important
    avoid_demos    the same for inputs that count against a weight (score "wanda" only)
    score          "wanda", "mwanda" (Wanda by language), "magnitude", "random", "top" (the highest Wanda scores go), or "sparsegpt"
    epsilon        added to the squared norm that `avoid_demos` give, so that nothing is divided by zero
    allocation     "uniform"; "outliers" (layers with more outlying scores lose fewer weights); "languages" (layers whose inputs
                   languages use more alike lose fewer); or "PATTERN=SHARE,...": other shares for the linear layers that match
    linears        patterns of linear layers such as "*.mlp.*"; a leading "!" leaves the matching ones out; () is all
    offload        keep activations on disk instead of in memory
    max_tokens     longest calibration prompt, in tokens; the rest is truncated
    count_padding  pad each calibration prompt to `max_tokens` and count the padding, as the reference code of Kim et al. does
    seed           of "random"
    compute        "float32", or "bfloat16": matrix products in bfloat16 (weights, statistics and scores stay float32), about
                   twice as fast where the processor has instructions for it, and slower than float32 elsewhere
    variation_weight  of "mwanda": weight of the standard deviation of input norms between languages; 0 leaves it out
    activity_weight   of "mwanda": weight of the probability that an input is active; 0 leaves it out
    """

    sparsity: float | None = None
    pattern: str = UNSTRUCTURED
    keep_demos: tuple[str | Path | Demonstration, ...] = ()
    avoid_demos: tuple[str | Path | Demonstration, ...] = ()
    score: str = "wanda"
    epsilon: float = 1e-6
    allocation: str = "uniform"
    linears: tuple[str, ...] = ()
    offload: bool = False
    max_tokens: Annotated[
        int, Entry("Sequence length; longer ones are truncated.", "N", least=1, named="seq_length", was=("max_tokens",))
    ] = 512
    count_padding: Annotated[
        bool, Entry("Pad sequences to `seq_length` and count the padding, as the code of Kim et al. does.")
    ] = False
    seed: Annotated[int, Entry("Seed of `random`.")] = 0
    compute: str = "float32"
    variation_weight: Annotated[
        float, Entry("Weight of the variation between languages, of `mwanda`.", "NUMBER", least=0)
    ] = 1.0
    activity_weight: Annotated[
        float, Entry("Weight of the probability that an input is active, of `mwanda`.", "NUMBER", least=0)
    ] = 1.0

    def compares_languages(self) -> bool:
        """Whether calibration data must be in several languages and name them."""
        return self.score == "mwanda" or self.allocation == LANGUAGES

    def group(self) -> tuple[int, int] | None:
        """(N, M) of an N:M pattern, None for the unstructured one."""
        if self.pattern == UNSTRUCTURED:
            return None
        removed, _, size = self.pattern.partition(":")
        return int(removed), int(size)

    def share(self) -> float:
        """Share of the weights to remove, of the pattern where no sparsity was given."""
        group = self.group()
        if group is not None:
            return group[0] / group[1]
        if self.sparsity is None:
            raise _refusal("no sparsity was given", "pass --sparsity, such as 0.3, or --pattern 2:4")
        return self.sparsity

    def to_json(self) -> dict[str, Any]:
        """The request as JSON: files by name, calibration prompts by number."""
        document = {name: value for name, value in asdict(self).items() if not name.endswith("_demos")}
        for name in ("keep_demos", "avoid_demos"):
            given: tuple[Any, ...] = getattr(self, name)
            files = [str(item) for item in given if isinstance(item, str | Path)]
            others = len(given) - len(files)
            document[name] = files + ([f"{others} demonstrations"] if others else [])
        return {**document, "linears": list(self.linears)}


def request_options() -> Mapping[str, Declared]:
    """The options of a request: those that `slice` has, then its own."""
    return {**declared(WeightOptions), **declared(SparsityRequest)}


def check_request(request: SparsityRequest) -> None:
    """Refuse what contradicts itself or cannot be done.

    Raises  PlanError
    """
    for name, option in request_options().items():
        value, schema = getattr(request, name), option.schema()
        if not name.endswith("_demos") and not any(is_json(value, kind) for kind in schema["type"]):
            raise _refusal(f"{flag(name)} {misfit(value, schema)}", option.entry.help)
    _check_shares(request)
    if request.score not in SCORES:
        raise _refusal(f"unknown score {request.score!r}", f"one of {', '.join(SCORES)}")
    if request.score in CALIBRATED and not request.keep_demos:
        raise _refusal(
            f"score {request.score!r} needs calibration data, and none was given",
            "pass --keep-demos FILE, made by `langslice demonstrations`; or --weights-by magnitude",
        )
    if request.avoid_demos and request.score != "wanda":
        raise _refusal(
            f"calibration data to avoid has no meaning for score {request.score!r}",
            "use --weights-by wanda with --avoid-demos",
        )
    if request.keep_demos and request.score not in CALIBRATED:
        raise _refusal(f"score {request.score!r} does not look at calibration data", "leave --keep-demos out")
    if not (math.isfinite(request.epsilon) and request.epsilon >= 0):
        raise _refusal(f"epsilon must be a number that is not negative, found {request.epsilon}", "such as 1e-6")
    _check_language_weights(request)
    if request.compute not in COMPUTE:
        raise _refusal(f"unknown type to compute in {request.compute!r}", f"one of {', '.join(COMPUTE)}")
    if request.max_tokens < 1:
        raise _refusal(
            f"calibration prompts of at most {request.max_tokens} tokens hold nothing", "pass 512, for example"
        )
    if request.allocation != "uniform":
        if request.pattern != UNSTRUCTURED:
            raise _refusal(
                f"pattern {request.pattern} fixes the share of every layer; allocation {request.allocation!r} would change it",
                "leave --allocation or --pattern out",
            )
        allocation_shares(request.allocation)
        if request.allocation in NAMED_ALLOCATIONS and request.score not in CALIBRATED:
            raise _refusal(
                f"allocation {request.allocation!r} needs calibration data",
                "use it with --weights-by wanda and --keep-demos",
            )


def allocation_shares(allocation: str) -> Mapping[str, float]:
    """Read "PATTERN=SHARE,..."; empty for the named allocations.

    Example   allocation_shares("*.mlp.*=0.4,*.0.*=0.1") == {"*.mlp.*": 0.4, "*.0.*": 0.1}
    Raises    PlanError
    """
    if allocation in NAMED_ALLOCATIONS:
        return {}
    shares: dict[str, float] = {}
    for item in allocation.split(","):
        pattern, equals, text = item.strip().rpartition("=")
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not equals or not pattern or not 0 <= share < 1:
            raise _refusal(
                f"allocation {allocation!r} is not understood at {item.strip()!r}",
                'uniform, outliers, languages, or "PATTERN=SHARE,..." with shares from 0 to below 1',
            )
        shares[pattern] = share
    return shares


def _check_language_weights(request: SparsityRequest) -> None:
    for name in ("variation_weight", "activity_weight"):
        value = getattr(request, name)
        if not (math.isfinite(value) and value >= 0):
            raise _refusal(f"{name} must be a number that is not negative, found {value}", "such as 1, or 0 for none")
        if value != 1.0 and request.score != "mwanda":
            raise _refusal(f"{name} has no meaning for score {request.score!r}", "use it with score mwanda")


def _check_shares(request: SparsityRequest) -> None:
    if request.sparsity is not None and not 0 < request.sparsity < 1:
        raise _refusal(f"sparsity must lie between 0 and 1, found {request.sparsity}", "0.3 zeroes 30% of the weights")
    if request.pattern == UNSTRUCTURED:
        request.share()
        return
    if not re.fullmatch(r"[1-9]\d?:[1-9]\d?", request.pattern):
        raise _refusal(f"unknown pattern {request.pattern!r}", "unstructured, or N:M such as 2:4 or 4:8")
    removed, size = request.group() or (0, 0)
    if removed >= size:
        raise _refusal(f"pattern {request.pattern} would leave no weight", "N must be smaller than M")
    if request.sparsity is not None and abs(request.sparsity - removed / size) > 1e-9:
        raise _refusal(
            f"pattern {request.pattern} zeroes {removed / size:g} of the weights, not the {request.sparsity:g} asked for",
            f"leave --sparsity out, or pass --sparsity {removed / size:g}",
        )


def _refusal(message: str, hint: str) -> PlanError:
    return PlanError(message, hint=hint)
