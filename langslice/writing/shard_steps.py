"""Carry out shard layouts in small steps that several threads can take.

A step is one file to link, one range to move, or one window to gather; steps of one shard may run at the same time, and
the last one syncs and closes its file.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path

from langslice.files.copy_ranges import clone_file, clone_part, clone_range, copy_range, fsync_path, release, write_all
from langslice.files.gather_rows import Gather, Windows, gather, split_gather
from langslice.files.safetensors_header import DTYPE_BITS
from langslice.writing.shard_layout import ByteRun, ShardLayout

STEP_BYTES = 128 << 20  # longest range that one thread takes at once

Step = Callable[[], None]


class Stopped(Exception):
    """Another thread failed, or a signal came; raised inside steps and never shown."""


@dataclass
class _OpenFile:
    """An output file that is being written, with the sources it is read from."""

    layout: ShardLayout
    steps_left: int
    target: int | None = None
    sources: dict[Path, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ShardWriter:
    """Writes shards into one folder and counts bytes by method."""

    def __init__(self, out: Path, progress: Callable[[int], None]) -> None:
        self.out = out
        self.bytes_by_method: Counter[str] = Counter()
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._local = threading.local()
        self._files: list[_OpenFile] = []

    def steps(self, layouts: list[ShardLayout], threads: int) -> list[Step]:
        """All steps; those of as many shards as there are threads in turn, so that these seldom wait for one file."""
        whole = [self._whole_file(layout) for layout in layouts if layout.method != "write"]
        parts = [self._parts(layout) for layout in layouts if layout.method == "write"]
        groups = [parts[first : first + threads] for first in range(0, len(parts), threads)]
        return whole + [step for group in groups for steps in zip_longest(*group) for step in steps if step is not None]

    def stop(self) -> None:
        """Make every running step raise `Stopped` soon."""
        self._stop.set()

    def close(self) -> None:
        """Close what a failure left open."""
        for file in self._files:
            _close(file)

    def _whole_file(self, layout: ShardLayout) -> Step:
        return partial(self._share_file, layout)

    def _share_file(self, layout: ShardLayout) -> None:
        path = self.out / layout.name
        if layout.method == "link":
            os.link(layout.source, path)
        else:
            source = os.open(layout.source, os.O_RDONLY)
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                if not clone_file(source, target):
                    raise OSError(f"{layout.source} cannot be reflinked, although a trial could")
            finally:
                os.close(source)
                os.close(target)
        fsync_path(path)
        self._count(layout.method, layout.data_bytes)

    def _parts(self, layout: ShardLayout) -> list[Step]:
        file = _OpenFile(layout, 0)
        self._files.append(file)
        work: list[Callable[[_OpenFile, int], None]] = [
            partial(self._gather, piece, path) for path, piece in _gathers(layout)
        ]
        work += [partial(self._move, run, layout.reflink) for run in _cut(layout)]
        if not work:
            work.append(lambda file, target: None)  # a shard of empty tensors still needs its header
        file.steps_left = len(work)
        return [partial(self._step, file, part) for part in work]

    def _step(self, file: _OpenFile, part: Callable[[_OpenFile, int], None]) -> None:
        if self._stop.is_set():
            raise Stopped
        part(file, self._target(file))
        with file.lock:
            file.steps_left -= 1
            last = file.steps_left == 0
        if last and file.target is not None:
            os.fsync(file.target)
            release(file.target, 0, len(file.layout.header) + file.layout.data_bytes)
            _close(file)

    def _target(self, file: _OpenFile) -> int:
        with file.lock:
            if file.target is None:
                file.target = os.open(self.out / file.layout.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                os.ftruncate(file.target, len(file.layout.header) + file.layout.data_bytes)
                write_all(file.target, file.layout.header, 0)
            return file.target

    @staticmethod
    def _source(file: _OpenFile, path: Path) -> int:
        with file.lock:
            if path not in file.sources:
                file.sources[path] = os.open(path, os.O_RDONLY)
            return file.sources[path]

    def _gather(self, piece: Gather, path: Path, file: _OpenFile, target: int) -> None:
        if not hasattr(self._local, "windows"):
            self._local.windows = Windows()
        gather(self._source(file, path), target, piece, self._local.windows, partial(self._count, "gather"))

    def _move(self, run: ByteRun, reflink: bool, file: _OpenFile, target: int) -> None:
        """Copy a run, sharing its aligned part where the file system can."""
        source = self._source(file, run.path)
        head, shared = clone_part(run.start, run.size_bytes, run.target_start) if reflink else (0, 0)
        if shared and not clone_range(source, run.start + head, shared, target, run.target_start + head):
            head = shared = 0
        if shared:
            self._count("reflink", shared)
        count = partial(self._count, "copy")
        copy_range(source, run.start, head, target, run.target_start, count)
        done = head + shared
        copy_range(source, run.start + done, run.size_bytes - done, target, run.target_start + done, count)

    def _count(self, method: str, size_bytes: int) -> None:
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            self.bytes_by_method[method] += size_bytes
            self._progress(size_bytes)


def _close(file: _OpenFile) -> None:
    with file.lock:
        descriptors = [*file.sources.values(), *([] if file.target is None else [file.target])]
        file.sources, file.target = {}, None
    for descriptor in descriptors:
        os.close(descriptor)


def _gathers(layout: ShardLayout) -> Iterator[tuple[Path, Gather]]:
    for tensor in layout.tensors:
        if tensor.indices:
            source, itemsize = tensor.source, DTYPE_BITS[tensor.source.dtype] // 8
            for piece in split_gather(source.start, source.shape, tensor.indices, itemsize, tensor.start):
                yield source.path, piece


def _cut(layout: ShardLayout) -> Iterator[ByteRun]:
    """Cut runs into steps at multiples of STEP_BYTES from their start; what can be shared stays in one piece."""
    for run in layout.runs:
        if layout.reflink and clone_part(run.start, run.size_bytes, run.target_start)[1]:
            yield run
            continue
        for offset in range(0, run.size_bytes, STEP_BYTES):
            size_bytes = min(STEP_BYTES, run.size_bytes - offset)
            yield ByteRun(run.path, run.start + offset, size_bytes, run.target_start + offset)
