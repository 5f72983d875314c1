"""Make valid files wrong at random and see that only clean errors come.

    python -m tests.fuzz.run --seconds 600 --write benchmarks/results/fuzzing.md

Every kind of file takes its turn, each with a time limit of its own. A fault is anything but a good end or a LangsliceError: a
traceback, ten seconds without an end, a gigabyte of memory, an output although the command failed, a message
that does not name the file. The bytes of each are kept.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

SECONDS = 10
MOST_BYTES = 1 << 30
ADDRESSES = 12 << 30  # torch alone reserves some; beyond, what asks for it fails instead of the machine


def main() -> None:
    """Fuzz for some seconds, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for all kinds together")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", help="kinds whose name this pattern finds")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="folder for the bytes of faults")
    parser.add_argument("--messages", type=int, default=0, help="print so many messages of each kind")
    parser.add_argument("--write", type=Path, help="file for the table")
    options = parser.parse_args()
    from tests.fuzz.example import make_example
    from tests.fuzz.targets import TARGETS, attempt

    faulthandler.enable()
    signal.signal(signal.SIGALRM, out_of_time)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    chosen = [target for target in TARGETS if re.search(options.only, target.name)]
    rows, faults = [], 0
    with tempfile.TemporaryDirectory(prefix="langslice-fuzz-") as name:
        example = make_example(Path(name))
        for number, target in enumerate(chosen):
            if message := attempt(example, target):
                raise SystemExit(f"{target.name}: the valid example is refused\n{message}")
            row = fuzz(example, target, options.seconds / len(chosen), options.seed + number, options)
            faults += row["faults"]
            rows.append(
                f"| {target.name} | {row['inputs']:,} | {row['ended well']:,} | {row['refused']:,} | {row['faults']} |"
            )
            print(rows[-1], file=sys.stderr, flush=True)
    table = "| kind of file | inputs | ended well | refused | faults |\n|---|---:|---:|---:|---:|\n" + "\n".join(rows)
    print(table)
    if options.write:
        text = (__doc__ or "").split("\n\n", 2)[2]
        how = f"Seed {options.seed}, {options.seconds:g} s, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}."
        options.write.write_text(f"# Fuzzing\n\n{text}\n{how}\n\n{table}\n")
    sys.exit(bool(faults))


class OutOfTime(BaseException):
    """No Exception, and above all no OSError, which some reader would pass over."""


def out_of_time(number: int, frame: object) -> None:
    """What the alarm does."""
    raise OutOfTime(f"no end after {SECONDS} seconds")


def fuzz(example: Path, target, seconds: float, seed: int, options: argparse.Namespace) -> Counter[str]:
    """Fuzz one kind of file."""
    from tests.fuzz.targets import attempt, wronged

    found: Counter[str] = Counter()
    seen: set[str] = set()
    messages: set[str] = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        choose = random.Random(f"{seed} {found['inputs']}")
        found["inputs"] += 1
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with wronged(example, target, choose) as wrong:
            try:
                signal.alarm(SECONDS)
                message = attempt(example, target)
                signal.alarm(0)
                found["refused" if message else "ended well"] += 1
                messages.add(message)
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
                if grown > MOST_BYTES:
                    raise MemoryError(f"{grown:,} bytes more")
            except BaseException as error:
                signal.alarm(0)
                if isinstance(error, KeyboardInterrupt):
                    raise
                found["faults"] += 1
                report(target, wrong, error, seen, options.keep)
    for message in sorted(messages)[: options.messages]:
        print(f"--- {target.name}\n{message}")
    return found


def report(target, wrong: bytes, error: BaseException, seen: set[str], keep: Path) -> None:
    """Print a fault that was not seen before, and keep its bytes."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "langslice/" in frame.filename]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    key = f"{type(error).__name__} at {place}"
    if key in seen:
        return
    seen.add(key)
    keep.mkdir(exist_ok=True)
    file = keep / f"{target.name.replace(' ', '-').replace(',', '')}-{len(seen)}"
    file.write_bytes(wrong)
    print(f"FAULT {target.name}: {key}: {str(error)[:300]}\n  bytes in {file}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
