"""A function in a process of its own: one that is forked warm, and whose crash, memory and time harm nobody else.

The processes are forked from one in which tests/families/warm.py has run: what it has imported and read is there from the start.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

MOST_MEMORY = 6 << 30  # bytes
MOST_SECONDS = 600.0
WARM = ["tests.families.warm"]


class ApartError(Exception):
    """A process that ended without a result: it crashed, or took too long."""


def apart(function: Callable[..., Any], *given: Any, seconds: float = MOST_SECONDS, memory: int = MOST_MEMORY) -> Any:
    """What a function returns, or raises, in a process of its own; function, values and result are pickled.

    memory  bytes that the process may have; an allocation beyond them fails there
    Raises  ApartError with how the process ended
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(WARM)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, memory, function, given), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise ApartError(f"no result within {seconds:g} s")
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise ApartError(f"its process ended with {_ending(process.exitcode or 0)}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if error is not None:
        raise error
    return result


def _run(sender: Connection, memory: int, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        said = function(*given), None
    except Exception as error:  # noqa: BLE001 - raised again by who asked
        said = None, error
    sender.send(said)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
