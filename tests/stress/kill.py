"""Kill commands at random moments, and see what they leave and whether the same command then ends as if nothing had been.

    python -m tests.stress.kill --kills 30 --write benchmarks/results/stress_kill.md

Every run is a process group of its own, forked from this one after the libraries were imported, so that the moments fall into
the work and not into Python's start; a kill is SIGKILL to the whole group. After each one:
- the target holds nothing, or the very bytes of a run that nobody disturbed; in the work folder of `run` are whole outputs
  of its steps, and hidden names;
- the source is unchanged, file by file (sha256);
- the same command ends well and gives the very bytes of the undisturbed run;
- next to the target nothing is left.
Some of the second runs are killed as well. slice.json is compared whole, but for how a healing run went: its seconds, and the step
at which it was taken up again; the page, too, but for these and the hash of slice.json.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stress.cases import Case, make_cases

PRELOADED = (
    "torch", "transformers", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "tokenizers",
    "transformers.models.auto.tokenization_auto", "transformers.models.llama.modeling_llama", "pyarrow.parquet",
    "langslice.cli.app", "langslice.slicing.main", "langslice.planning.build", "langslice.verification.main",
    "langslice.counting", "langslice.verification.resume",
    "langslice.sparsity.main", "langslice.cli.console", "wordfreq", "langcodes", "accelerate", "safetensors.torch",
    "transformers.trainer", "matplotlib.pyplot", "pandas", "langslice.healing.main", "langslice.healing.curves",
    "langslice.healing.sequences",
    "langslice.recipes.main", "langslice.evaluation.main", "langslice.evaluation.results", "langslice.reporting.page",
    "langslice.restoration.main", "huggingface_hub.repocard_data",
)  # fmt: skip
CHAIN = 0.25  # share of second runs that are killed too


@dataclass
class Tally:
    """What happened to the kills of one case."""

    seconds: float = 0.0
    kills: int = 0
    found: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def start(case: Case, target: Path, log: Path) -> int:
    """Fork a run of a command as the leader of a new process group; gives its number."""
    pid = os.fork()
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # by both, so that it is done whoever runs first
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        from langslice.cli import app as cli

        sys.argv = ["langslice", *case.arguments, "-o", str(target)]
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    finally:
        sys.stdout.flush()
        os._exit(code)
    return 0


def finish(pid: int) -> int:
    """Wait for a run; gives its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    """Kill a run with all that it started, and wait until all are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    finish(pid)
    with contextlib.suppress(ProcessLookupError):
        while True:  # its children are init's now
            os.killpg(pid, signal.SIGKILL)
            time.sleep(0.005)


def contents(path: Path, clock: frozenset[str] = frozenset()) -> dict[str, str]:
    """sha256 of every file below a path, or of the file itself; of JSON without the entries in `clock`.

    What a work folder keeps for itself is left out: digests and times of files.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    names = [file.relative_to(path) for file in files]
    kept = [name for name in names if not clock or name.parts[:1] not in ((".langslice",), (".lock",))]
    return {name.as_posix(): hashlib.sha256(lasting(path / name, clock)).hexdigest() for name in kept}


def lasting(file: Path, clock: frozenset[str]) -> bytes:
    """A file's bytes; without the entries in `clock`, JSON and the report, which has them and the hash of slice.json, too."""
    raw = file.read_bytes()
    if clock and file.suffix == ".json":
        return json.dumps(without(json.loads(raw), clock)).encode()
    if clock and file.name == "report.html":
        names = "|".join(sorted(clock))
        told = rf'<dt>({names})</dt><dd>[^<]*</dd>|<tr><th scope="row">slice\.json</th>.*?</tr>'
        return re.sub(told, "", raw.decode()).encode()
    return raw


def without(value: Any, names: frozenset[str]) -> Any:
    """A JSON document without entries of some names, at any depth."""
    if isinstance(value, dict):
        return {key: without(item, names) for key, item in value.items() if key not in names}
    return [without(item, names) for item in value] if isinstance(value, list) else value


def stress(case: Case, kills: int, folder: Path, seed: int) -> Tally:
    """Kill a command so many times; every fault is told in one line."""
    generator = random.Random(seed)
    place, log = folder / "place", folder / "log.txt"
    target = place / case.target
    place.mkdir()
    began = time.monotonic()
    if finish(start(case, target, log)):
        raise SystemExit(f"{case.name} fails undisturbed:\n{log.read_text()}")
    tally = Tally(seconds=time.monotonic() - began)
    before, expected = contents(case.reads), contents(target, case.clock)
    empty(place)
    while tally.kills < kills:
        tally.kills += 1
        pid = start(case, target, log)
        time.sleep(generator.random() * tally.seconds)
        kill(pid)
        note = f"{case.name}, kill {tally.kills}"
        tally.faults += [f"{note}: {fault}" for fault in faults_after_kill(case, target, expected, before)]
        if count_what_is_left(tally, case, target, expected):
            empty(place)
            continue
        if tally.kills < kills and generator.random() < CHAIN:
            tally.found["second run killed too"] += 1
            continue
        if code := finish(start(case, target, log)):
            tally.faults.append(f"{note}: the same command ended with {code}\n{log.read_text()}")
        elif contents(target, case.clock) != expected:
            differ = differing(contents(target, case.clock), expected)
            tally.faults.append(f"{note}: the same command gave other bytes: {differ}")
        else:
            tally.found["same command: same bytes"] += 1
        tally.found["same command: went on"] += case.went_on in log.read_text()
        left = [path.name for path in place.iterdir() if path != target]
        if left:
            tally.faults.append(f"{note}: left next to the target: {left}")
        empty(place)
    shutil.rmtree(place)
    return tally


def count_what_is_left(tally: Tally, case: Case, target: Path, expected: dict[str, str]) -> bool:
    """Count what is after a kill; whether the target is whole."""
    near = [*target.parent.iterdir(), *(target.iterdir() if case.steps and target.exists() else ())]
    tally.found["left: unfinished, hidden"] += any(is_unfinished(path) for path in near if path != target)
    whole = target.exists() and contents(target, case.clock) == expected
    finished = case.steps and any(not path.name.startswith(".") for path in near if path != target)
    tally.found["target: whole" if whole else "target: finished steps" if finished else "target: nothing"] += 1
    return whole


def faults_after_kill(
    case: Case, target: Path, expected: dict[str, str], before: dict[str, str]
) -> Iterator[str]:  # fmt: skip
    """What is wrong right after a kill."""
    if target.exists() and case.steps:
        yield from faults_in_work(case, target, expected)
    elif target.exists() and (found := contents(target, case.clock)) != expected:
        yield f"something else than the whole output is at the target: {differing(found, expected)}"
    if contents(case.reads) != before:
        yield "the source changed"
    for path in target.parent.iterdir():
        if path != target and not is_unfinished(path, target):
            yield f"a name that does not say that it is unfinished: {path.name}"


def faults_in_work(case: Case, target: Path, expected: dict[str, str]) -> Iterator[str]:
    """Outputs of steps that are not whole. The card in a model's folder is written again with the page, at the end."""
    for path in target.iterdir():
        if is_unfinished(path) or path.name in (".langslice", ".lock"):
            continue
        if path.is_dir():
            right = {
                name.partition("/")[2]: each for name, each in expected.items() if name.startswith(f"{path.name}/")
            }
            found = contents(path, case.clock)
            found = {name: each for name, each in found.items() if not is_unfinished(Path(name))}
            for cards in (right, found):
                cards.pop("README.md", None)
        else:
            right, found = {".": expected.get(path.name, "")}, contents(path, case.clock)
        if found != right or not right:
            yield f"{path.name} in the work folder is no whole output: {differing(found, right)}"


def is_unfinished(path: Path, target: Path | None = None) -> bool:
    """Whether a name says what it is: hidden, and partial; or a healing run, which goes on from there."""
    stem = "." if target is None else f".{target.name}."
    hidden = path.name.startswith(stem) and (".partial-" in path.name or path.name.endswith((".healing", ".partial")))
    return hidden or (target is None and path.name.endswith(".json.partial"))


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Names of files that differ."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def empty(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def run(kills: int, *, seed: int, corpus_bytes: int, only: str = "") -> dict[str, Tally]:
    """Stress every case whose name holds `only`."""
    from langslice.mini import mini_model_path

    for name in PRELOADED:
        importlib.import_module(name)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="langslice-kill-") as name:
        folder = Path(name)
        source = Path(shutil.copytree(mini_model_path(), folder / "model"))
        for number, case in enumerate(make_cases(folder, corpus_bytes=corpus_bytes, model=source)):
            if only in case.name:
                tallies[case.name] = stress(case, kills, folder, seed + number)
                print(f"{case.name}: {tallies[case.name]}", file=sys.stderr, flush=True)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The counts as Markdown."""
    columns = [
        "target: nothing", "target: finished steps", "target: whole", "left: unfinished, hidden", "second run killed too",
        "same command: same bytes", "same command: went on",
    ]  # fmt: skip
    lines = [
        f"| command | one run, s | kills | {' | '.join(columns)} | faults |",
        f"|---|---:|---:|{'---:|' * len(columns)}---:|",
    ]
    for name, tally in tallies.items():
        cells = [str(tally.found[column]) for column in columns]
        lines.append(f"| {name} | {tally.seconds:.1f} | {tally.kills} | {' | '.join(cells)} | {len(tally.faults)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the options, run, print the table, and end with 1 where anything was at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="for each command")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--corpus-mb", type=int, default=24)
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a run is forked, and threads are not
    os.environ.setdefault("MPLBACKEND", "agg")
    tallies = run(options.kills, seed=options.seed, corpus_bytes=options.corpus_mb << 20, only=options.only)
    how = f"Seed {options.seed}; {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}."
    text = f"{(__doc__ or '').split(chr(10) * 2, 2)[2]}\n{how}\n\n{table(tallies)}"
    print(
        json.dumps({name: {"kills": one.kills, **one.found} for name, one in tallies.items()}) if options.json else text
    )
    if options.write:
        options.write.write_text(f"# Commands killed at random moments\n\n{text}", encoding="utf-8")
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    print("\n".join(faults), file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
