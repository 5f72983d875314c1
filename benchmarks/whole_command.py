"""What a user waits for: whole commands of an earlier state of this repository and of this one, in turns.

    python benchmarks/whole_command.py --before REF [--after REF] [--pairs 5] [--rows NAME ...] [--work FOLDER]

REF is a commit or tag; both states are checked out into worktrees of their own, the later one as it is committed. Each row is
one command line, run by both states as a whole process, in turns whose order changes: seconds on the clock, processor seconds
of the process and all that it started, and the
most memory that they held at once. The later state is measured twice: with an empty cache (see docs/troubleshooting.md), as on the
first slice of a model by these languages, and with what an earlier run kept. Both must give the same plan and the same weights.
Needs LANGSLICE_MODELS and, for one row, LANGSLICE_ASSETS. Writes results/whole_command.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATES = ("before", "after, empty cache", "after")
PAGE = 4096


@dataclass(frozen=True)
class Row:
    """A command line; {models}, {assets} and {out} are put in. `made` is whether it writes a slice to {out}."""

    title: str
    command: str
    made: bool = True


ROWS = {
    "e5": Row("`slice multilingual-e5-small -l ko,en`", "slice {models}/multilingual-e5-small -l ko,en -o {out}"),
    "e5-unproven": Row("the same, `--no-verify`", "slice {models}/multilingual-e5-small -l ko,en --no-verify -o {out}"),
    "gemma": Row("`slice gemma-3-270m -l ko,en`", "slice {models}/gemma-3-270m -l ko,en -o {out}"),
    "gemma-unproven": Row("the same, `--no-verify`", "slice {models}/gemma-3-270m -l ko,en --no-verify -o {out}"),
    "inspect": Row("`inspect gemma-3-270m`", "inspect {models}/gemma-3-270m", made=False),
    "qwen2": Row(
        "tokenizer of Qwen2 alone, `-l en --no-verify`",
        "slice {assets}/tokenizers/qwen2 -l en --no-verify --leave-out reference.* -o {out}",
    ),
    "neurons": Row(
        "`slice gemma-3-270m --neurons-sparsity 0.2 --uniform --no-verify`",
        "slice {models}/gemma-3-270m --neurons-sparsity 0.2 --uniform --no-verify -o {out}",
    ),
}


@dataclass(frozen=True)
class Measured:
    """One run: wall and processor seconds, and peak megabytes of the process and all that it started."""

    wall: float
    cpu: float
    peak: float


class Peak(threading.Thread):
    """Samples the resident memory of a process and its descendants, 50 times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.most, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        """Until `ended` is set."""
        while not self.ended.wait(0.02):
            self.most = max(self.most, sum(resident(pid) for pid in tree(self.pid)))


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def resident(pid: int) -> int:
    """Bytes of memory of a process; 0 for one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def run(root: Path, command: list[str], cache: str, log: Path) -> Measured:
    """Run `langslice` of a state of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "LANGSLICE_CACHE": cache}
    with log.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "langslice", *command], env=environment, cwd=root, stdout=output, stderr=output
        )
        peak = Peak(child.pid)
        peak.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
    peak.ended.set()
    peak.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed with {child.returncode}: langslice {' '.join(command)}\n{log.read_text()[-3000:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, max(peak.most, usage.ru_maxrss * 1024) / 1e6)


def content(out: Path) -> str:
    """Digest of what a slice is: its plan but for what is said to people, and its weights and tokenizer."""
    plan = json.loads((out / "slice.json").read_text(encoding="utf-8"))["plan"]
    digest = hashlib.sha256(
        json.dumps([plan["kept"], plan["tensors"], plan["implied_ids"], plan["structure"]]).encode()
    )
    for path in sorted(out.rglob("*")):
        if path.suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json"):
            digest.update(path.name.encode())
            with path.open("rb") as file:  # in blocks: a process starts with the peak of the one that starts it
                while block := file.read(1 << 18):
                    digest.update(block)
    return digest.hexdigest()


def measure(names: list[str], work: Path, pairs: int, places: dict[str, str]) -> dict[tuple[str, str], list[Measured]]:
    """Every row by every state, in turns."""
    found: dict[tuple[str, str], list[Measured]] = {}
    out, log = work / "out", work / "log.txt"
    for name in names:
        command = ROWS[name].command.format(out=out, **places).split()
        made: set[str] = set()
        for pair in range(-1, pairs):  # the first round fills page cache and cache, and is not counted
            for state in STATES[:: 1 if pair % 2 else -1]:
                shutil.rmtree(out, ignore_errors=True)
                cache = "" if state == STATES[1] else str(work / "cache")
                one = run(work / ("before" if state == STATES[0] else "after"), command, cache, log)
                if pair >= 0:
                    found.setdefault((name, state), []).append(one)
                if ROWS[name].made:
                    made.add(content(out))
                print(name, state, one, f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        if len(made) > 1:
            raise SystemExit(f"{name}: the states do not make the same slice")
    shutil.rmtree(out, ignore_errors=True)
    return found


def page(
    found: dict[tuple[str, str], list[Measured]], names: list[str], ref: str, pairs: int, loads: list[float]
) -> str:
    """The page: medians, and medians of the ratios of each pair."""
    lines = [
        "# Whole commands\n",
        f"`benchmarks/whole_command.py --before {ref}`: whole processes in turns, {pairs} pairs, medians (least to most); memory "
        f"is the peak of the command and all that it starts, sampled. {os.cpu_count()} cores ({platform.machine()}) shared with "
        f"other work, load {min(loads):.1f} to {max(loads):.1f}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}. "
        "All states make the same slices.\n",
        "| command | state | processor, s | to before | wall, s | peak MB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name in names:
        for state in STATES:
            runs = found[name, state]
            ratios = [one.cpu / other.cpu for one, other in zip(runs, found[name, STATES[0]], strict=True)]
            cells = [
                f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
                for values, digits in (
                    ([one.cpu for one in runs], 1),
                    ([one.wall for one in runs], 1),
                    ([one.peak for one in runs], 0),
                )
            ]
            title = ROWS[name].title if state == STATES[0] else ""
            lines.append(
                f"| {title} | {state} | {cells[0]} | {statistics.median(ratios):.2f} | {cells[1]} | {cells[2]} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="REF", help="state of the repository to compare with")
    parser.add_argument("--after", default="HEAD", metavar="REF", help="state that is compared")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "langslice-whole-command")
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    places = {
        "models": str(Path(os.environ.get("LANGSLICE_MODELS", ROOT / "../models")).resolve()),
        "assets": str(Path(os.environ.get("LANGSLICE_ASSETS", ROOT / "../shared/assets")).resolve()),
    }
    states = {"before": given.before, "after": given.after}
    for name, ref in states.items():
        subprocess.run(["git", "worktree", "add", "--detach", str(work / name), ref], cwd=ROOT, check=True)
    loads = [os.getloadavg()[0]]
    try:
        found = measure(given.rows, work, given.pairs, places)
    finally:
        for name in states:
            subprocess.run(["git", "worktree", "remove", "--force", str(work / name)], cwd=ROOT, check=True)
    loads.append(os.getloadavg()[0])
    text = page(found, given.rows, given.before, given.pairs, loads)
    (ROOT / "benchmarks/results/whole_command.md").write_text(text, encoding="utf-8")
    print(text)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
