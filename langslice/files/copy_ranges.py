"""Move byte ranges and whole files inside the kernel: reflink, hard link, or copy.

Bytes never pass through Python unless the file system leaves no other way. Reflinked bytes are shared by source and
copy until one of them is written to; hard links are the source itself under a second name.

Source: ioctl_ficlone(2), ioctl_ficlonerange(2), copy_file_range(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

from langslice.errors import CheckpointError

FICLONE = 0x40049409  # _IOW(0x94, 9, int)
FICLONERANGE = 0x4020940D  # _IOW(0x94, 13, struct file_clone_range)
CLONE_BLOCK_BYTES = 4096  # file systems with larger blocks refuse the range, which is then copied
COPY_STEP_BYTES = 16 << 20  # one call into the kernel: progress is told, and a stop is heard, this often
FALLBACK_STEP_BYTES = 1 << 20

# What the kernel answers when a method is not available here, as opposed to failing.
NOT_AVAILABLE = {
    errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.ETXTBSY,
}  # fmt: skip

Progress = Callable[[int], None]


def copy_range(source: int, start: int, size_bytes: int, target: int, target_start: int, progress: Progress) -> None:
    """Copy a byte range between two open files, in the kernel where it can.

    Raises   CheckpointError when the source ends early; OSError (ENOSPC, EIO, ...) from the target
    """
    done, in_kernel = 0, True
    while done < size_bytes:
        step = min(COPY_STEP_BYTES, size_bytes - done)
        if in_kernel:
            copied, in_kernel = _copy_in_kernel(source, start + done, step, target, target_start + done)
        else:
            copied = _copy_through_memory(
                source, start + done, min(step, FALLBACK_STEP_BYTES), target, target_start + done
            )
        release(source, start + done, copied)
        done += copied
        release(target, target_start, done)
        if copied:
            progress(copied)


def _copy_in_kernel(source: int, start: int, size_bytes: int, target: int, target_start: int) -> tuple[int, bool]:
    """Copy up to `size_bytes`; returns how many, and whether this way is still open."""
    try:
        copied = os.copy_file_range(source, target, size_bytes, start, target_start)
    except OSError as error:
        if error.errno not in NOT_AVAILABLE:
            raise
        return 0, False
    return copied, copied > 0  # some file systems copy nothing and report no error; the other way finds the true end


def _copy_through_memory(source: int, start: int, size_bytes: int, target: int, target_start: int) -> int:
    data = os.pread(source, size_bytes, start)
    if not data:
        raise ended_early(source, start)
    write_all(target, data, target_start)
    return len(data)


def read_into(source: int, buffer: memoryview, start: int) -> None:
    """Fill a buffer from an offset of an open file.

    Raises   CheckpointError when the file ends before the buffer is full
    """
    done = 0
    while done < len(buffer):
        count = os.preadv(source, [buffer[done:]], start + done)
        if count == 0:
            raise ended_early(source, start + done)
        done += count


def write_all(target: int, data: bytes | memoryview, start: int) -> None:
    """Write all of `data` at an offset of an open file."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(target, view[done:], start + done)


def release(file: int, start: int, size_bytes: int) -> None:
    """Tell the kernel that a range will not be read again: it starts to write it out, and gives its memory back.

    Without this a large copy fills the page cache, evicts what other programs need, and, where fresh memory is dear (as
    in virtual machines), spends most of its time on it.
    """
    if size_bytes:
        os.posix_fadvise(file, start, size_bytes, os.POSIX_FADV_DONTNEED)


def ended_early(source: int, position: int) -> CheckpointError:
    """Say that a source file became shorter than its header promised."""
    try:
        name = str(Path(f"/proc/self/fd/{source}").readlink())
    except OSError:
        name = f"descriptor {source}"
    return CheckpointError(
        f"a weight file ended early\n  {name}\n  expected bytes at {position:,}, found the end",
        "the file was changed while it was read; run again",
    )


def clone_file(source: int, target: int) -> bool:
    """Share all bytes of one open file with another empty one; False where the file system cannot."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in NOT_AVAILABLE:
            return False
        raise
    return True


def clone_range(source: int, start: int, size_bytes: int, target: int, target_start: int) -> bool:
    """Share a block-aligned byte range of two open files; False where the file system cannot."""
    try:
        fcntl.ioctl(target, FICLONERANGE, struct.pack("qQQQ", source, start, size_bytes, target_start))
    except OSError as error:
        if error.errno in NOT_AVAILABLE:
            return False
        raise
    return True


def clone_part(start: int, size_bytes: int, target_start: int) -> tuple[int, int]:
    """The part of a range that blocks allow to be shared, as (offset from `start`, bytes); (0, 0) if none.

    Example   clone_part(100, 10_000, 4196) == (3996, 4096): source 4096..8192 becomes target 8192..12288
    """
    if (start - target_start) % CLONE_BLOCK_BYTES:
        return 0, 0
    head = -start % CLONE_BLOCK_BYTES
    whole = (size_bytes - head) // CLONE_BLOCK_BYTES * CLONE_BLOCK_BYTES
    return (head, whole) if whole > 0 else (0, 0)


def can_reflink(source: Path, folder: Path) -> bool:
    """Try, on a small throw-away file in `folder`, whether it can share bytes with `source`."""
    probe = folder / f".reflink-probe-{uuid.uuid4().hex}"
    source_file = os.open(source, os.O_RDONLY)
    try:
        target = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            return clone_file(source_file, target)
        finally:
            os.close(target)
            probe.unlink()
    finally:
        os.close(source_file)


def can_link(source: Path, folder: Path) -> bool:
    """Try whether `folder` can hold a hard link to `source`."""
    probe = folder / f".link-probe-{uuid.uuid4().hex}"
    try:
        os.link(source, probe)
    except OSError as error:
        if error.errno in NOT_AVAILABLE | {errno.EACCES, errno.EMLINK}:
            return False
        raise
    probe.unlink()
    return True


def fsync_path(path: Path) -> None:
    """Ask the disk to keep a file, or the list of names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
