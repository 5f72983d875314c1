"""Work on the machines of a Ray cluster: connecting to one, and tasks that outlive the loss of a worker.

What runs there is the business of others (counting/cluster_count.py, sparsity/cluster_calibration.py,
sweeps/scheduler.py, budgets/cluster_points.py). Ray is an extra: this module is the only one that imports it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from langslice.errors import ClusterError

LOCAL: Final = "local"
_ANSWER_SECONDS: Final = 10
RETRIES: Final = 3  # of a task whose worker died; an error that the task itself raises is never tried again


@dataclass(frozen=True)
class Outcome:
    """What happened to a task: its value, or why its worker was lost for good."""

    key: Any
    value: Any
    lost: str = ""


@contextmanager
def connected(address: str, *, cpus: int | None = None) -> Iterator[Any]:
    """Give the `ray` module, connected to a cluster; one that was started here is stopped again.

    address  `auto`, host:port or ray://host:port, or `local`: a cluster of this machine alone
    cpus     of a local cluster; all cores unless given
    Raises   ClusterError without the package, or when the cluster cannot be reached
    """
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--ray needs the package `ray`", 'pip install "langslice[ray]"') from error
    if ray.is_initialized():
        yield ray
        return
    _refuse_silent(address)
    options: dict[str, Any] = {"num_cpus": cpus} if address == LOCAL else {"address": address}
    try:
        ray.init(**options, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster at {address}\n  {error}", "start one, or use --ray local") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Refuse an address where nobody answers: Ray would wait there for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address}\n  {error}", "start one, or use --ray local") from None


def cluster_cpus(ray: Any) -> int:
    """CPUs of the whole cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def run_tasks(ray: Any, function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]) -> Iterator[Outcome]:
    """Run a function once for each job, one CPU each, and yield what happens to them, in the order in which they end.

    jobs     (key, arguments); taken as room comes free, so that millions of them need no memory
    Raises   what the function raises. A job whose worker dies is run again: its outcome is yielded once, whatever happens
    """
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
    waiting = iter(jobs)
    at_once = 2 * cluster_cpus(ray)
    running = {remote.remote(*given): key for key, given in islice(waiting, at_once)}
    try:
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            key = running.pop(ended)
            try:
                outcome = Outcome(key, ray.get(ended))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                outcome = Outcome(key, None, f"the worker was lost: {error}")
            running.update({remote.remote(*given): key for key, given in islice(waiting, 1)})
            yield outcome
    finally:
        for task in running:
            ray.cancel(task, force=True)
