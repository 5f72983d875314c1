"""One vocabulary after another, each measured: the rungs of a ladder, and the lowest that loses little enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from langslice.errors import FewerRowsError, PlanError
from langslice.evaluation.loaded_model import Loaded
from langslice.files.gather_rows import sliced_shape
from langslice.options import Choice
from langslice.planning.build import make_plan
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.planning.tensors import tensor_edits
from langslice.progress import Report, silent
from langslice.tradeoffs.costs import can_learn, token_costs
from langslice.tradeoffs.in_memory import load_original, slice_in_memory
from langslice.tradeoffs.losses import Loss, line_items, losses
from langslice.tradeoffs.texts import Texts

FREQUENCY, EXPECTED = "frequency", "expected-loss"
# Two sizes of the vocabulary that are no further apart are not told apart.
_CLOSE = 1.03


@dataclass(frozen=True)
class Rung:
    """A vocabulary of one size, and what it costs.

    order         by what tokens were dropped: frequency, or expected-loss
    rows          of the vocabulary
    size_bytes    of the weights as they would be written
    memory_bytes  of the weights in float32
    growth        language -> tokens of its lines, as a share of those of the original
    loss          language -> what is lost
    """

    order: str
    rows: int
    size_bytes: int
    memory_bytes: int
    growth: Mapping[str, float]
    loss: Mapping[str, Loss]

    @property
    def worst(self) -> float:
        """The loss of the language that loses most."""
        return max(one.value for one in self.loss.values())


@dataclass
class Ladder:
    """A model whose vocabulary is made smaller, with what is known of it so far."""

    source: Source
    choice: Choice
    texts: Texts
    report: Report
    costs: np.ndarray | None = None
    _original: Loaded | None = None
    _before: Mapping[str, np.ndarray] = field(default_factory=dict)
    _rungs: dict[str, Rung] = field(default_factory=dict)
    _plans: dict[tuple[int | None, bool], SlicePlan] = field(default_factory=dict)

    @property
    def original(self) -> Loaded:
        """The whole model."""
        if self._original is None:
            self.report("measuring the original", 0, 0)
            self._original = load_original(self.source.checkpoint)
            self._before = line_items(self._original, self.texts.measured)
        return self._original

    def plan(self, rows: int | None, order: str = FREQUENCY) -> SlicePlan:
        """The plan of at most so many rows. Raises FewerRowsError where more must stay."""
        costs = self.costs if order == EXPECTED and rows is not None else None
        key = (rows, costs is not None)
        if key not in self._plans:
            limit = {} if rows is None else {"max_vocab": min(rows, self.choice.get("max_vocab") or rows)}
            choice = {**self.choice, **limit}
            self._plans[key] = make_plan(self.source, choice, silent, costs=costs)
        return self._plans[key]

    @cached_property
    def least(self) -> int:
        """Rows that always stay."""
        try:
            return len(self.plan(1).kept)
        except FewerRowsError as error:
            return error.least

    def learn(self, least: int) -> bool:
        """Learn what tokens cost, once; False for a model that does not tell."""
        if self.costs is None and can_learn(self.original) and all(self.texts.learned.values()):
            self.report("learning what tokens cost", 0, 0)
            with slice_in_memory(self.source, self.plan(least)) as smallest:
                self.costs = token_costs(self.original, smallest, self.source.tokenizer, self.texts.learned)
        return self.costs is not None

    def measure(self, plan: SlicePlan, order: str = FREQUENCY) -> Rung:
        """Measure the slice of a plan, in memory; each choice of tokens is measured once."""
        rows, original = len(plan.new_to_old), self.original
        if plan.checked not in self._rungs:
            self.report(f"measuring {rows:,} rows", 0, 0)
            with slice_in_memory(self.source, plan) as small:
                after = line_items(small, self.texts.measured)
                growth = {code: _growth(original, small, lines) for code, lines in self.texts.measured.items()}
            size, memory = _weight_bytes(self.source, plan)
            found = losses(original.kind, self._before, after)
            self._rungs[plan.checked] = Rung(order, rows, size, memory, growth, found)
        return replace(self._rungs[plan.checked], order=order)


def ladder_sizes(full: int, least: int, count: int = 6) -> list[int]:
    """Sizes from the whole choice to what always stays, each smaller than the last by the same factor.

    Example  ladder_sizes(1000, 10, 3) == [1000, 100, 10]
    """
    return list(dict.fromkeys(round(size) for size in np.geomspace(full, least, count).tolist()))


def smallest_within(ladder: Ladder, limit: float, order: str) -> tuple[SlicePlan, Rung]:
    """The plan of the smallest vocabulary that loses less than a limit in every language, found by halving.

    Raises  PlanError when the whole choice loses as much already
    """
    plan = ladder.plan(None)
    rung = ladder.measure(plan, order)
    if rung.worst >= limit:
        raise PlanError(
            f"--max-loss {limit:g}: already the whole choice of {rung.rows:,} rows loses {rung.worst:.4f}",
            hint="allow more, or keep more tokens: leave --coverage, --top-k and --max-vocab away, add --corpus",
        )
    low = ladder.least
    best = (plan, rung)
    fewest = ladder.plan(low, order)
    if (found := ladder.measure(fewest, order)).worst < limit:
        return fewest, found
    high = rung.rows
    while high / low > _CLOSE:
        middle = round((low * high) ** 0.5)
        plan = ladder.plan(middle, order)
        rung = ladder.measure(plan, order)
        if rung.worst < limit:
            best, high = (plan, rung), middle
        else:
            low = middle
    return best


def _growth(original: Loaded, small: Loaded, lines: Sequence[str]) -> float:
    return _tokens(small, lines) / max(_tokens(original, lines), 1)


def _tokens(loaded: Loaded, lines: Sequence[str]) -> int:
    tokenizer = loaded.model.tokenizer if loaded.kind == "encoder" else loaded.tokenizer
    return sum(len(ids) for ids in tokenizer(list(lines), add_special_tokens=False, verbose=False).input_ids)


def _weight_bytes(source: Source, plan: SlicePlan) -> tuple[int, int]:
    """Bytes of the written weights, and of them in float32."""
    stored = numbers = 0
    for name, edit in tensor_edits(plan, source).items():
        if edit.action != "drop":
            shape = source.checkpoint.tensors[name].shape
            count = prod(sliced_shape(shape, edit.indices))
            numbers += count
            stored += source.checkpoint.tensors[name].size_bytes * count // max(prod(shape), 1)
    return stored, 4 * numbers
