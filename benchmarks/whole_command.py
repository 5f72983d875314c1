"""What a user waits for: whole commands of an earlier state of this repository, of this one and of a rival, in turns.

    python benchmarks/whole_command.py --before REF [--after REF] [--pairs 5] [--rows NAME ...] [--work FOLDER]

REF is a commit or tag; both states are checked out into worktrees of their own, the later one as it is committed. Each row is
one command line, run as a whole process, in turns whose order changes: seconds on the clock, processor seconds
of the process and all that it started, and the most memory that they held at once. The later state is measured with what an
earlier run kept in the cache, and --cold times without it, as on the first slice of a model by these languages. All states
must give the same plan and the same weights. Where TRIMBED_PYTHON and RIVALS_PYTHON name interpreters (README.md), the rows
that a rival can do are run by it too (rivals.py). `evaluate` is compared with the processor seconds of the model's forward
passes alone on the same batches.
Needs LANGSLICE_MODELS and LANGSLICE_ASSETS. Writes results/whole_command.md and .json; growth.py measures growth.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rivals import build_xlmr, rival_commands

ROOT = Path(__file__).resolve().parents[1]
BEFORE, COLD, AFTER, RIVAL, FORWARD = "before", "after, empty cache", "after", "rival", "forward passes alone"
STATES = (BEFORE, COLD, AFTER, RIVAL, FORWARD)
PAGE = 4096


@dataclass(frozen=True)
class Row:
    """A command line; {models}, {assets}, {work} and {out} are put in.

    made    whether it writes a slice to {out}
    rival   who else does it
    wanted  what was aimed at: processor seconds and megabytes
    before  whether the earlier state is run
    spelled what the earlier state called an option: now -> then
    """

    title: str
    command: str
    made: bool = True
    rival: str = ""
    wanted: str = ""
    before: bool = True
    spelled: tuple[str, str] = ("", "")


E5, GEMMA = "slice {models}/multilingual-e5-small -l ko,en", "slice {models}/gemma-3-270m -l ko,en"
ROWS = {
    "e5": Row("`slice multilingual-e5-small -l ko,en`", f"{E5} -o {{out}}", rival="trimbed", wanted="8 s, 450 MB"),
    "e5-quick": Row(
        "`slice multilingual-e5-small -l ko,en --verify-level quick`",
        f"{E5} --verify-level quick -o {{out}}",
        rival="trimbed",
        before=False,
    ),
    "e5-unproven": Row(
        "`slice multilingual-e5-small -l ko,en --no-verify`", f"{E5} --no-verify -o {{out}}", wanted="4 s, 300 MB"
    ),
    "gemma": Row("`slice gemma-3-270m -l ko,en`", f"{GEMMA} -o {{out}}", wanted="20 s, 700 MB"),
    "gemma-quick": Row(
        "`slice gemma-3-270m -l ko,en --verify-level quick`", f"{GEMMA} --verify-level quick -o {{out}}", before=False
    ),
    "gemma-unproven": Row(
        "`slice gemma-3-270m -l ko,en --no-verify`", f"{GEMMA} --no-verify -o {{out}}", wanted="8 s, 450 MB"
    ),
    "inspect": Row("`inspect gemma-3-270m`", "inspect {models}/gemma-3-270m", made=False, wanted="5 s, 400 MB"),
    "qwen2": Row(
        "tokenizer of Qwen2 alone, `-l en --no-verify`",
        "slice {assets}/tokenizers/qwen2 -l en --no-verify --leave-out reference.* -o {out}",
        rival="prunetokens",
        wanted="4 s",
    ),
    "neurons": Row(
        "`slice gemma-3-270m --neurons-sparsity 0.2 --uniform --no-verify`",
        "slice {models}/gemma-3-270m --neurons-sparsity 0.2 --uniform --no-verify -o {out}",
        rival="optipfair",
        wanted="3 s, 150 MB",
        spelled=("--uniform", "--even"),
    ),
    "xlmr": Row(
        "`slice xlm-roberta-base -l ko,en` (random weights)",
        "slice {work}/xlm-roberta-base -l ko,en -o {out}",
        rival="trimbed",
        wanted="a fifth of the time, a third of the memory",
        before=False,
    ),
    "evaluate": Row(
        "`evaluate multilingual-e5-small -t sts,bitext -l ko,en -n 400`",
        "evaluate {models}/multilingual-e5-small -t sts,bitext -l ko,en --pairs ko-en --available --data {assets}/data "
        "-n 400 -q",
        made=False,
        wanted="1.2 times the forward passes",
        before=False,
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


def run(root: Path | None, command: list[str], cache: str, log: Path) -> Measured:
    """Run a command; with a state of the repository at `root` before installed packages, without one as it is."""
    own = {"PYTHONPATH": str(root)} if root else {"PYTHONPATH": ""}
    environment = {**os.environ, **own, "HF_HUB_OFFLINE": "1", "LANGSLICE_CACHE": cache}
    with log.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(command, env=environment, cwd=root or log.parent, stdout=output, stderr=output)
        peak = Peak(child.pid)
        peak.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
    peak.ended.set()
    peak.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed with {child.returncode}: {' '.join(command)}\n{log.read_text()[-3000:]}")
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


def measure(
    names: list[str], work: Path, pairs: int, cold: int, places: dict[str, str], rivals: dict[str, list[str]]
) -> dict[tuple[str, str], list[Measured]]:
    """Every row by everyone, in turns; before the first turn the later state and the rival run once, which fills caches."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for name in names:
        turns = {BEFORE: pairs * ROWS[name].before, COLD: cold, AFTER: pairs}
        turns |= {RIVAL: pairs} if name in rivals else {}
        turns |= {FORWARD: pairs} if name == "evaluate" else {}
        made: set[str] = set()
        for turn in range(-1, max(turns.values())):
            for state in list(turns)[:: 1 if turn % 2 else -1]:
                if turn >= turns[state] or (turn < 0 and state in (BEFORE, COLD)):
                    continue
                one = _once(name, state, work, places, rivals)
                if turn >= 0:
                    found.setdefault((name, state), []).append(one)
                if ROWS[name].made and state != RIVAL:
                    made.add(content(work / "out"))
                print(name, state, one, f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        if len(made) > 1:
            raise SystemExit(f"{name}: the states do not make the same slice")
    shutil.rmtree(work / "out", ignore_errors=True)
    return found


def _once(name: str, state: str, work: Path, places: dict[str, str], rivals: dict[str, list[str]]) -> Measured:
    shutil.rmtree(work / "out", ignore_errors=True)
    if state in (RIVAL, FORWARD):
        alone = [
            sys.executable,
            str(ROOT / "benchmarks/forward_passes.py"),
            *(places[key] for key in ("models", "assets")),
        ]
        one = run(None, rivals[name] if state == RIVAL else alone, "", work / "log.txt")
        # Of the passes, what they print: not what it takes to import libraries and to load the model.
        printed = (work / "log.txt").read_text(errors="replace").split()[-1]
        return one if state == RIVAL else replace(one, cpu=float(printed))
    command = ROWS[name].command.format(out=work / "out", work=work, **places).split()
    if state == BEFORE:
        now, then = ROWS[name].spelled
        command = [then if one == now else one for one in command]
    root = work / (BEFORE if state == BEFORE else AFTER)
    cache = "" if state == COLD else str(work / "cache")
    return run(root, [sys.executable, "-m", "langslice", *command], cache, work / "log.txt")


def page(found: dict[tuple[str, str], list[Measured]], names: list[str], ref: str, loads: list[float]) -> str:
    """The page: medians, and medians of the ratios of each pair."""
    lines = [
        "# Whole commands\n",
        f"`benchmarks/whole_command.py --before {ref}`: whole processes in turns, medians (least to most); memory "
        f"is the peak of the command and all that it starts, sampled. {os.cpu_count()} cores ({platform.machine()}) shared with "
        f"other work, load {min(loads):.1f} to {max(loads):.1f}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}. "
        "All states of langslice make the same slices. `after` finds in its cache what an earlier run kept. Ratios are to "
        "`after`, turn by turn.\n",
        "| command | state | runs | processor, s | CPU to after | wall, s | peak MB | memory to after | wanted |",
        "|---|---|--:|---:|---:|---:|---:|---:|---|",
    ]
    for name in names:
        title = ROWS[name].title
        for state in (state for state in STATES if (name, state) in found):
            runs, ours = found[name, state], found[name, AFTER]
            cells = [
                f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
                for values, digits in (
                    ([one.cpu for one in runs], 1),
                    ([one.wall for one in runs], 1),
                    ([one.peak for one in runs], 0),
                )
            ]
            pairs = list(zip(runs, ours, strict=False))
            ratios = [statistics.median(getattr(x, key) / getattr(y, key) for x, y in pairs) for key in ("cpu", "peak")]
            shown = [f"{ratio:.2f}" if state != AFTER else "" for ratio in ratios]
            said = ROWS[name].rival if state == RIVAL else state
            wanted = ROWS[name].wanted if state == AFTER else ""
            lines.append(
                f"| {title} | {said} | {len(runs)} | {cells[0]} | {shown[0]} | {cells[1]} | {cells[2]} | {shown[1]} | {wanted} |"
            )
    return "\n".join(lines) + "\n"


def save(document: dict[str, Any], text: str, beside: str | None) -> None:
    """Write page and data anew, or add to both what was measured beside them, under a title."""
    data, written = (ROOT / f"benchmarks/results/whole_command.{kind}" for kind in ("json", "md"))
    if beside:
        kept = json.loads(data.read_text(encoding="utf-8"))
        document = {**kept, "beside": {**kept.get("beside", {}), beside: document}}
        text = f"{written.read_text(encoding='utf-8')}\n{text.replace('# Whole commands', f'## {beside}', 1)}"
    data.write_text(f"{json.dumps(document, indent=1)}\n", encoding="utf-8")
    written.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="REF", help="state of the repository to compare with")
    parser.add_argument("--after", default="HEAD", metavar="REF", help="state that is compared")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cold", type=int, default=1, help="runs of the later state with an empty cache")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--beside", metavar="TITLE", help="put the rows below those of the page, under a heading")
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
        if "xlmr" in given.rows:
            build_xlmr(work, Path(places["assets"]))
        rivals = rival_commands(given.rows, work, places)
        found = measure(given.rows, work, given.pairs, given.cold, places, rivals)
    finally:
        for name in states:
            subprocess.run(["git", "worktree", "remove", "--force", str(work / name)], cwd=ROOT, check=True)
    loads.append(os.getloadavg()[0])
    after = subprocess.run(
        ["git", "rev-parse", "--short", given.after], cwd=ROOT, check=True, capture_output=True, text=True
    )
    text = page(found, given.rows, f"{given.before} --after {after.stdout.strip()}", loads)
    runs = [{"row": name, "state": state, **asdict(one)} for (name, state), runs in found.items() for one in runs]
    save({"before": given.before, "loads": loads, "runs": runs}, text, given.beside)
    print(text)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
