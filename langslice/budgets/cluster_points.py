"""Points measured on a Ray cluster before the search asks for them: each task evaluates one cut, and its loss is saved here.

What a cut is (the plan of its vocabulary; what goes of its parts) is decided here and sent along, so that a task
decides nothing: it opens the model, which must lie where every machine sees it under the same name, and evaluates. A point whose
worker is lost for good is measured here when the search comes to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from langslice.budgets.cut import Cut
from langslice.budgets.evaluator import Evaluator
from langslice.budgets.parts import Dropped
from langslice.budgets.points import FullCut, Points, save_point
from langslice.cluster.ray_cluster import connected, run_tasks
from langslice.errors import ClusterError
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.plan import SlicePlan
from langslice.planning.source import Source
from langslice.progress import Report
from langslice.structure.kept import Kept
from langslice.tradeoffs.losses import Items, Loss, losses
from langslice.version import __version__


@dataclass(frozen=True)
class Given:
    """What every task needs; equal where the key is, so that a worker opens a model once.

    key      digest of the model and of the lines
    version  of langslice, which may be another where the task runs
    digest   sha256 of the model
    before   what the original gives on the lines
    """

    key: str
    version: str = field(compare=False)
    digest: str = field(compare=False)
    folder: Path = field(compare=False)
    trust_remote_code: bool = field(compare=False)
    carry: tuple[str, ...] = field(compare=False)
    leave_out: tuple[str, ...] = field(compare=False)
    texts: Mapping[str, Sequence[str]] = field(compare=False)
    before: Mapping[str, Items] = field(compare=False)


@contextmanager
def measured_on(address: str | None, points: Points, *, trust_remote_code: bool, report: Report) -> Iterator[None]:
    """Have points measured on a cluster, where one is named, as long as this is open.

    address  see `langslice.cluster.ray_cluster.connected`; None for none
    Raises   ClusterError
    """
    if address is None:
        yield
        return
    with connected(address) as ray:
        points.ahead = partial(_measure, ray, points, trust_remote_code, report)
        try:
            yield
        finally:
            points.ahead = None


def measure_point(
    given: Given, cut: Cut, plan: SlicePlan, dropped: Mapping[str, Dropped], narrowed: Kept
) -> dict[str, Loss]:
    """Language -> what a cut loses, on whichever machine this is.

    Raises  ClusterError where the model or langslice is another here
    """
    evaluator = _opened(given)
    try:
        return losses(evaluator.kind, given.before, evaluator.items(cut, plan, dropped, narrowed))
    finally:
        evaluator.close()  # a worker that waits holds no model


def given_of(points: Points, *, trust_remote_code: bool) -> Given:
    """What a task needs of points."""
    source = points.ladder.source
    return Given(
        points.content, __version__, points.evaluator.model_digest, source.checkpoint.folder.absolute(), trust_remote_code,
        source.carry, source.leave_out, points.evaluator.texts, points.before,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _opened(given: Given) -> Evaluator:
    """The model in this process, opened once."""
    checkpoint = open_checkpoint(given.folder, trust_remote_code=given.trust_remote_code)
    evaluator = Evaluator(Source(checkpoint, True, given.carry, given.leave_out), given.texts)
    if (__version__, evaluator.model_digest) != (given.version, given.digest):
        what = f"langslice {__version__}, not {given.version}" if __version__ != given.version else "another model"
        raise ClusterError(f"{given.folder}: a machine of the cluster has {what}", "give all machines the same")
    return evaluator


def _measure(ray: Any, points: Points, trust_remote_code: bool, report: Report, wanted: Sequence[FullCut]) -> None:
    if len(wanted) < 2:  # one alone takes as long there as here
        return
    given = ray.put(given_of(points, trust_remote_code=trust_remote_code))
    plans = {point.plan.checked: point.plan for point in wanted}
    sent = {name: ray.put(plan) for name, plan in plans.items()}
    jobs = ((point, (given, point.cut, sent[point.plan.checked], point.dropped, point.narrowed)) for point in wanted)
    for done, outcome in enumerate(run_tasks(ray, measure_point, jobs), 1):
        if not outcome.lost:
            save_point(outcome.key, outcome.value)
        report("measuring on the cluster", done, len(wanted))
