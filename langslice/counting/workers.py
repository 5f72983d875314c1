"""Count blocks in several processes.

Each is a fresh interpreter with pipes for its input and output, not a `multiprocessing` child: it needs no
`if __name__ == "__main__"` in the user's script, inherits no thread of the tokenizers library, and gets its own
TOKENIZERS_PARALLELISM, so that the user's stays as it is.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Full, Queue
from threading import Thread
from typing import IO, Any

import numpy as np

from langslice.counting.blocks import TextBlock
from langslice.counting.counter import count_blocks
from langslice.counting.split_points import SplitRules
from langslice.counting.weighted_texts import backend_encode
from langslice.errors import LangsliceError


def count_in_processes(
    backend_json: str, rules: SplitRules, size: int, blocks: Iterable[TextBlock], processes: int, limit_bytes: int
) -> tuple[np.ndarray, list[str]]:
    """Do what `count_blocks` does, in several processes; blocks go to whichever is free.

    backend_json  tokenizer.json of the backend, without truncation and padding
    limit_bytes   memory for distinct chunks of each process
    Returns       counts (size,) int64, and the self-check's mismatches
    Raises        LangsliceError when a process dies
    """
    queue: Queue[TextBlock | None] = Queue(maxsize=processes)
    setup = (backend_json, rules, size, limit_bytes)
    workers = [_Worker(queue, setup) for _ in range(processes)]
    try:
        for worker in workers:
            worker.start()
        for block in blocks:
            _raise_failure(workers)
            queue.put(block)
        for _ in workers:
            queue.put(None)
        for worker in workers:
            worker.join()
        _raise_failure(workers)
    finally:
        _stop(workers, queue)
    counts = np.sum([worker.counts for worker in workers], axis=0)
    return counts, sorted(text for worker in workers for text in worker.mismatches)


def _raise_failure(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.failure is not None:
            raise LangsliceError(
                f"a counting process ended early (exit code {worker.process.poll()}): {worker.failure!r}",
                "it may have run out of memory; count with fewer processes",
            ) from worker.failure


def _stop(workers: list[_Worker], queue: Queue[TextBlock | None]) -> None:
    """End every process and thread. A thread takes one None and ends; which one takes it is chance."""
    for worker in workers:
        worker.process.kill()
    while any(worker.is_alive() for worker in workers):
        with suppress(Full):
            queue.put(None, timeout=0.05)
    for worker in workers:
        worker.close()


class _Worker(Thread):
    """A thread that feeds one process, block by block, each after the answer to the one before."""

    def __init__(self, queue: Queue[TextBlock | None], setup: tuple[Any, ...]) -> None:
        super().__init__(daemon=True)
        self.queue, self.setup = queue, setup
        self.failure: Exception | None = None
        self.counts = np.zeros(0, np.int64)
        self.mismatches: list[str] = []
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" means the current folder
        program = f"import sys; sys.path[:] = {path!r}; from langslice.counting.workers import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )

    def run(self) -> None:
        """Feed the process until the queue ends; after a failure only drain, so that nobody waits for room."""
        block: TextBlock | None = TextBlock(b"")
        while block is not None:
            block = self.queue.get()
            if self.failure is None:
                try:
                    self._exchange(block)
                except (OSError, EOFError, pickle.UnpicklingError) as error:
                    self.failure = error

    def _exchange(self, block: TextBlock | None) -> None:
        source, sink = self.process.stdout, self.process.stdin
        if source is None or sink is None:
            raise OSError("the process has no pipes")
        if self.setup:
            _send(sink, self.setup)
            self.setup = ()
        _send(sink, block)
        answer = pickle.load(source)
        if block is None:
            self.counts, self.mismatches = answer

    def close(self) -> None:
        """Close the pipes to the ended process, and collect it."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # bytes were left for a process that died; that is reported already
                    pipe.close()
        self.process.wait()


def _send(sink: IO[bytes], message: Any) -> None:
    pickle.dump(message, sink, protocol=pickle.HIGHEST_PROTOCOL)
    sink.flush()


def serve() -> None:
    """Be a counting process: read setup and blocks from stdin, answer on stdout."""
    from tokenizers import Tokenizer

    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not get between the answers
    source = sys.stdin.buffer
    try:
        backend_json, rules, size, limit_bytes = pickle.load(source)
        encode = backend_encode(Tokenizer.from_str(backend_json))
        _send(sink, count_blocks(encode, rules, size, _received(source, sink), limit_bytes))
    except (EOFError, BrokenPipeError):
        os._exit(1)  # the parent is gone or no longer interested; it says why


def _received(source: IO[bytes], sink: IO[bytes]) -> Iterator[TextBlock]:
    while (block := pickle.load(source)) is not None:
        yield block
        _send(sink, True)
