"""In which order to read many short continuations: what is read once, and what goes into one pass together.

Nothing here touches a model. A pass costs about as much as `_PASS` further positions (reading the weights, and Python), so
that rows are padded, and common beginnings cut, only where that is cheaper than another pass; the cheapest division of
the sorted rows is found exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

Tokens = Sequence[int]
# Measured on two Llamas of 0.3 M and 5 M parameters on a CPU: 90 and 20 positions; on a GPU few positions are as slow as many.
_PASS = {"cpu": 64, "cuda": 1024}


@dataclass(frozen=True)
class CandidateGroup:
    """Candidates with a common beginning.

    shared  tokens in common; at least one token of every row is beyond them
    rows    (place in the caller's list, tokens)
    """

    shared: int
    rows: tuple[tuple[int, Tokens], ...]

    @property
    def positions(self) -> int:
        """Tokens to read when the common ones are read once."""
        return self.shared + sum(len(tokens) - self.shared for _, tokens in self.rows)


def gather_families(groups: Sequence[Sequence[Tokens]]) -> list[CandidateGroup]:
    """Gather groups that share the same beginning whole; a group whose candidates share none stays by itself."""
    gathered: dict[Any, list[tuple[int, Tokens]]] = {}
    place = 0
    for number, sequences in enumerate(groups):
        shared = common_beginning(sequences)
        rows = gathered.setdefault(tuple(sequences[0][:shared]) if shared else number, [])
        for tokens in sequences:
            rows.append((place, tokens))
            place += 1
    return [CandidateGroup(len(key) if isinstance(key, tuple) else 0, tuple(rows)) for key, rows in gathered.items()]


def common_beginning(sequences: Sequence[Tokens]) -> int:
    """Tokens that all sequences begin with, at least one of each left over."""
    ordered = sorted(list(tokens) for tokens in sequences)
    first, last = ordered[0], ordered[-1]
    limit = max(min(len(tokens) for tokens in sequences) - 1, 0)
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def batch_families(families: Sequence[CandidateGroup], device: str, budget: int) -> Iterator[list[CandidateGroup]]:
    """Families read together, each batch truncated to its first one's common part, of at most `budget` positions (or one).

    Cut to c, a family of k rows reads its further common tokens k times.
    """
    ordered = sorted(families, key=lambda family: family.shared)
    alike = [list(group) for _, group in groupby(ordered, key=lambda family: family.shared)]
    shared = np.array([group[0].shared for group in alike])
    many = _sums([len(group) for group in alike])
    rows = _sums([sum(len(family.rows) for family in group) for group in alike])
    tokens = _sums([group[0].shared * sum(len(family.rows) for family in group) for group in alike])

    def cost(starts: np.ndarray, stop: int) -> np.ndarray:
        cut = shared[starts]
        again = (tokens[stop] - tokens[starts]) - cut * (rows[stop] - rows[starts])
        return np.asarray(2 * _PASS[device] + cut * (many[stop] - many[starts]) + again)

    for start, stop in _cheapest_runs(len(alike), cost):
        batch: list[CandidateGroup] = []
        positions = 0
        for family in (family for group in alike[start:stop] for family in group):
            if batch and positions + family.positions > budget:
                yield batch
                batch, positions = [], 0
            batch.append(family)
            positions += family.positions
        yield batch


def batch_rows(lengths: Sequence[int], device: str, budget: int) -> Iterator[list[int]]:
    """Rows read together, each pass padded to its longest, of at most `budget` positions with the padding (or one row).

    lengths  tokens of each row
    Returns  indices of the rows of each pass
    """
    ordered = sorted(range(len(lengths)), key=lambda row: lengths[row])
    alike = [list(group) for _, group in groupby(ordered, key=lambda row: lengths[row])]
    width = np.array([lengths[group[0]] for group in alike])
    rows = _sums([len(group) for group in alike])

    def cost(starts: np.ndarray, stop: int) -> np.ndarray:
        return np.asarray(_PASS[device] + width[stop - 1] * (rows[stop] - rows[starts]))

    for start, stop in _cheapest_runs(len(alike), cost):
        found = [row for group in alike[start:stop] for row in group]
        step = max(1, budget // max(int(width[stop - 1]), 1))
        yield from (found[at : at + step] for at in range(0, len(found), step))


def _cheapest_runs(count: int, cost: Callable[[np.ndarray, int], np.ndarray]) -> list[tuple[int, int]]:
    """Divide 0 … count - 1 into runs of the least cost in all.

    cost     (starts, stop) -> cost of the run from each start to before stop
    Returns  (start, stop) of each run
    """
    best = np.zeros(count + 1)
    begins = np.zeros(count + 1, dtype=np.int64)
    for stop in range(1, count + 1):
        totals = best[:stop] + cost(np.arange(stop), stop)
        begins[stop] = totals.argmin()
        best[stop] = totals[begins[stop]]
    runs = []
    stop = count
    while stop:
        runs.append((int(begins[stop]), stop))
        stop = int(begins[stop])
    return runs[::-1]


def _sums(values: Sequence[int]) -> np.ndarray:
    """(n + 1,) sums of the first 0, 1, … n values."""
    return np.concatenate([[0], np.cumsum(values)])
