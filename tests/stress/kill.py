"""Kill commands at random moments, and see what they leave and whether the same command then ends as if nothing had been.

    python -m tests.stress.kill --kills 30 --write benchmarks/results/stress_kill.md

Every run is a process group of its own, forked from this one after the libraries were imported, so that the moments fall into
the work and not into Python's start; a kill is SIGKILL to the whole group. After each one:
- at the target stands nothing, or the very bytes of a run that nobody disturbed;
- the source is unchanged, file by file (sha256);
- the same command ends well and gives the very bytes of the undisturbed run;
- beside the target nothing is left.
Some of the second runs are killed as well. Nothing is excused: slice.json is compared whole.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PRELOADED = (
    "torch", "transformers", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "tokenizers",
    "transformers.models.auto.tokenization_auto", "transformers.models.llama.modeling_llama", "pyarrow.parquet",
    "langslice.cli", "langslice.job", "langslice.planning", "langslice.proof", "langslice.counting", "langslice.unfinished",
    "langslice.sparsity.pruning", "langslice.console", "wordfreq", "langcodes", "accelerate", "safetensors.torch",
)  # fmt: skip
CHAIN = 0.25  # share of second runs that are killed too


@dataclass(frozen=True)
class Case:
    """A command, without its output option, and the name of what it writes below a folder of its own."""

    name: str
    arguments: tuple[str, ...]
    target: str = "out"


@dataclass
class Tally:
    """What became of the kills of one case."""

    seconds: float = 0.0
    kills: int = 0
    found: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def make_cases(folder: Path, *, corpus_bytes: int, model: Path) -> list[Case]:
    """Commands on a small model, with their inputs written below `folder`."""
    from langslice.mini import heldout_languages, heldout_text

    french, english = heldout_text("fr"), heldout_text("en")
    shots = [f"French: {left}\nEnglish: {right}\n" for left, right in zip(french, english, strict=True)]
    demos = folder / "mt.jsonl"
    demos.write_text("".join(json.dumps({"text": "".join(shots[at : at + 4])}) + "\n" for at in range(0, 160, 4)))
    lines = [line for language in heldout_languages() for line in heldout_text(language)]
    words = sorted({word for line in lines for word in line.split()})
    generator = random.Random(0)
    corpus, size = folder / "corpus.txt", 0
    with corpus.open("w", encoding="utf-8") as file:
        while size < corpus_bytes:
            line = " ".join(generator.choices(words, k=12)) + "\n"
            size += len(line.encode())
            file.write(line)
    cut = ("slice", str(model), "-l", "ko,en")
    cases = [
        Case("slice: vocabulary", cut),
        Case("slice: vocabulary and structure", (*cut, "--drop-layers", "5", "--drop-heads", "0:0-1")),
        Case("slice: weights", ("slice", str(model), "--sparsity", "0.3", "--keep-demos", str(demos))),
        Case("count", ("count", str(model), "--corpus", str(corpus), "--processes", "2"), "out.parquet"),
    ]
    heal = healing(folder, model)
    return cases + ([heal] if heal is not None else [])


def healing(folder: Path, model: Path) -> Case | None:
    """A short healing run, where this version has the command."""
    from langslice.cli import app

    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    if "heal" not in names:
        return None
    from langslice import job
    from langslice.mini import heldout_text

    text = folder / "heal.txt"
    text.write_text("\n".join(heldout_text("en")), encoding="utf-8")
    job.slice(model, folder / "to-heal", drop_layers=["5"], verify=False)
    return Case("heal", ("heal", str(folder / "to-heal"), "--text", str(text), "--steps", "6"))


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
        from langslice import cli

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


def contents(path: Path) -> dict[str, str]:
    """sha256 of every file below a path, or of the file itself."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def stress(case: Case, kills: int, source: Path, folder: Path, seed: int) -> Tally:
    """Kill a command so many times; every fault is told in one line."""
    generator = random.Random(seed)
    place, log = folder / "place", folder / "log.txt"
    target = place / case.target
    place.mkdir()
    began = time.monotonic()
    if finish(start(case, target, log)):
        raise SystemExit(f"{case.name} fails undisturbed:\n{log.read_text()}")
    tally = Tally(seconds=time.monotonic() - began)
    before, expected = contents(source), contents(target)
    empty(place)
    while tally.kills < kills:
        tally.kills += 1
        pid = start(case, target, log)
        time.sleep(generator.random() * tally.seconds)
        kill(pid)
        note = f"{case.name}, kill {tally.kills}"
        tally.faults += [f"{note}: {fault}" for fault in faults_after_kill(target, expected, source, before)]
        tally.found["left: an unfinished sibling"] += any(is_partial(path, target) for path in place.iterdir())
        if target.exists():
            tally.found["target: whole"] += 1
            empty(place)
            continue
        tally.found["target: nothing"] += 1
        if tally.kills < kills and generator.random() < CHAIN:
            tally.found["second run killed too"] += 1
            continue
        if code := finish(start(case, target, log)):
            tally.faults.append(f"{note}: the same command ended with {code}\n{log.read_text()}")
        elif contents(target) != expected:
            tally.faults.append(f"{note}: the same command gave other bytes: {differing(contents(target), expected)}")
        else:
            tally.found["same command: same bytes"] += 1
        tally.found["same command: went on"] += "went on behind" in log.read_text()
        left = [path.name for path in place.iterdir() if path != target]
        if left:
            tally.faults.append(f"{note}: left beside the target: {left}")
        empty(place)
    shutil.rmtree(place)
    return tally


def faults_after_kill(target: Path, expected: dict[str, str], source: Path, before: dict[str, str]) -> Iterator[str]:
    """What is wrong right after a kill."""
    if target.exists() and contents(target) != expected:
        yield f"something else than the whole output stands at the target: {differing(contents(target), expected)}"
    if contents(source) != before:
        yield "the source changed"
    for path in target.parent.iterdir():
        if path != target and not is_partial(path, target):
            yield f"a name that does not say that it is unfinished: {path.name}"


def is_partial(path: Path, target: Path) -> bool:
    """Whether a name says what it is: hidden, and partial."""
    return path.name.startswith(f".{target.name}.partial-")


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
        source = folder / "model"
        shutil.copytree(mini_model_path(), source)
        for number, case in enumerate(make_cases(folder, corpus_bytes=corpus_bytes, model=source)):
            if only in case.name:
                tallies[case.name] = stress(case, kills, source, folder, seed + number)
                print(f"{case.name}: {tallies[case.name]}", file=sys.stderr, flush=True)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The counts as Markdown."""
    columns = [
        "target: nothing", "target: whole", "left: an unfinished sibling", "second run killed too",
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
