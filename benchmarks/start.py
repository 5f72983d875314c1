"""How long until `langslice --help` has answered, next to a Python that does nothing?

    python benchmarks/start.py [--rounds 15]

Whole processes in turns, medians, with files in the page cache. Writes results/start.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
COMMANDS = {"langslice --help": ["-m", "langslice", "--help"], "python -c pass": ["-c", "pass"]}


def measure(arguments: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in MB of one process."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=HERE.parent, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for arguments in COMMANDS.values():
        measure(arguments)
    found = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            found[name].append(measure(arguments))
    lines = [
        "# Start\n",
        f"`benchmarks/start.py`: whole processes in turns, {rounds} rounds, medians (least to most). {os.cpu_count()} cores "
        f"({platform.machine()}) shared with other work, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}.\n",
        "| command | wall, s | CPU, s | peak MB |",
        "|---|---:|---:|---:|",
    ]
    for name, runs in found.items():
        wall, cpu, memory = zip(*runs, strict=True)
        times = " | ".join(f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in (wall, cpu))
        lines.append(f"| {name} | {times} | {statistics.median(memory):.0f} |")
    text = "\n".join(lines) + "\n"
    (HERE / "results/start.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
