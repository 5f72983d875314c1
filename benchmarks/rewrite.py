r"""Measure the rewrite of a large checkpoint against `cp -r` of the same output: seconds and peak memory, cold cache.

    python benchmarks/rewrite.py --work /tmp/rewrite          # 16 GB, copying and with links, then growth
    python benchmarks/rewrite.py --work /tmp/rewrite --xfs    # on a loop-mounted XFS (needs root)
    python benchmarks/rewrite.py --work /tmp/rewrite --side-files TOKENIZER_FOLDER \
        --command 'langslice slice {source} --plan plan.json --no-verify -o {out} {link}'

Every run is a process of its own, timed from outside; runs of the methods alternate, and before each one the disk is
synced and the page cache dropped. `cp` is not charged for writing its pages out, while the rewrite syncs every file.
Without --command, the process is this file's own small driver of `write_shards`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT_SHARE_LOW, KEPT_SHARE_HIGH = 0.70, 0.23  # of the first third of the ids and of the rest: 58 thousand of 151,936


@dataclass(frozen=True)
class Measured:
    """One process: wall seconds, seconds in the kernel, peak resident megabytes."""

    seconds: float
    system_seconds: float
    peak_mb: float


def drop_caches(folder: Path) -> str:
    """Make the next read come from the disk; returns how."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for path in folder.rglob("*.safetensors"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return "posix_fadvise(DONTNEED) on every weight file"
    return "echo 3 > /proc/sys/vm/drop_caches"


def measured(command: list[str], work: Path) -> Measured:
    """Run a command with a cold cache, from a process that stays small: a child's peak begins at its parent's."""
    drop_caches(work)
    time.sleep(0.5)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    child = subprocess.Popen(command, env=environment, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed with {child.returncode}: {shlex.join(command)}")
    return Measured(seconds, usage.ru_stime, usage.ru_maxrss / 1000)


def rewrite_command(arguments: argparse.Namespace, source: Path, out: Path, link: bool) -> list[str]:
    """The process that rewrites: the given command, or this file as a driver."""
    if arguments.command:
        text = arguments.command.format(source=source, out=out, link="--link" if link else "")
        return shlex.split(text)
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(source), str(out)]
    return command + ["--link"] if link else command


def child(source: Path, out: Path, link: bool) -> None:
    """Slice the vocabulary of `source` to a fixed pseudo-random choice of ids."""
    import numpy as np

    from langslice.model.checkpoint import open_checkpoint
    from langslice.writing.shards import TensorEdit, staging_folder, write_shards

    checkpoint = open_checkpoint(source)
    vocab = checkpoint.config["vocab_size"]
    share = np.where(np.arange(vocab) < vocab / 3, KEPT_SHARE_LOW, KEPT_SHARE_HIGH)
    kept = np.flatnonzero(np.random.default_rng(0).random(vocab) < share).astype(np.int64)
    edits = {
        name: TensorEdit("slice", {0: kept}) if tensor.shape[0] == vocab else TensorEdit("keep")
        for name, tensor in checkpoint.tensors.items()
    }
    with staging_folder(out, source=source) as folder:
        shutil.copy(source / "config.json", folder)
        write_shards(checkpoint, edits, folder, link=link)
    if "torch" in sys.modules:
        raise SystemExit("torch was imported")


def compare(arguments: argparse.Namespace, work: Path, log: Callable[[str], None]) -> list[dict[str, float]]:
    """Alternate rewriting and copying; returns one row of figures a round."""
    source, reference, out = work / "source", work / "reference", work / "out"
    build(arguments, source, arguments.gigabytes)
    subprocess.run(rewrite_command(arguments, source, reference, link=False), check=True, cwd=ROOT, env=environment())
    check_slice(source, reference)
    rows = []
    for number in range(arguments.rounds):
        commands = {
            "rewrite": rewrite_command(arguments, source, out, link=False),
            "cp": ["cp", "-r", "--reflink=never", str(reference), str(out)],
        }
        if arguments.xfs:
            commands["cp_auto"] = ["cp", "-r", str(reference), str(out)]
        else:
            commands["link"] = rewrite_command(arguments, source, out, link=True)
        row: dict[str, float] = {}
        for name in list(commands)[:: 1 if number % 2 else -1]:
            found = measured(commands[name], work)
            start = time.perf_counter()
            os.sync()
            row |= {name: found.seconds, f"{name}_sync": time.perf_counter() - start, f"{name}_mb": found.peak_mb}
            row |= {f"{name}_system": found.system_seconds}
            shutil.rmtree(out)
        row["load"] = os.getloadavg()[0]
        rows.append(row)
        log(json.dumps({key: round(value, 2) for key, value in row.items()}))
    shutil.rmtree(reference)
    return rows


def environment() -> dict[str, str]:
    """The package of this checkout comes first."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def build(arguments: argparse.Namespace, folder: Path, gigabytes: float) -> None:
    """Make a source, with tokenizer files where a command needs them."""
    if not folder.exists():
        maker = Path(__file__).with_name("make_checkpoint.py")
        subprocess.run([sys.executable, maker, folder, "--gigabytes", str(gigabytes)], check=True)
        if arguments.side_files:
            shutil.copytree(arguments.side_files, folder, dirs_exist_ok=True)


def check_slice(source: Path, reference: Path) -> None:
    """Refuse to measure an output that is not the slice: another process compares rows of both, through mmap."""
    code = (
        "import json, sys\nimport numpy as np\nfrom langslice.model.checkpoint import open_checkpoint\n"
        "old, new = open_checkpoint(sys.argv[1]), open_checkpoint(sys.argv[2])\n"
        "def rows(tensor):\n    return np.memmap(tensor.path, np.uint16, 'r', tensor.start, tensor.shape)\n"
        "for name, tensor in new.tensors.items():\n"
        "    before, after = rows(old.tensors[name]), rows(tensor)\n"
        "    if before.shape == after.shape:\n"
        "        assert np.array_equal(before[-1:], after[-1:]), name\n        continue\n"
        "    place = {row.tobytes(): number for number, row in enumerate(np.ascontiguousarray(before[:, :16]))}\n"
        "    places = [place[row.tobytes()] for row in np.ascontiguousarray(after[:, :16])]\n"
        "    assert len(places) > 1000 and len(old.tensors) == len(new.tensors)\n"
    )
    subprocess.run([sys.executable, "-c", code, source, reference], check=True, cwd=ROOT, env=environment())


def growth(arguments: argparse.Namespace, work: Path, log: Callable[[str], None]) -> dict[float, list[Measured]]:
    """Rewrite checkpoints of growing size, all sizes in every round."""
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= arguments.gigabytes]
    found: dict[float, list[Measured]] = {size: [] for size in sizes}
    for size in sizes:
        source = work / f"source{size}"
        if size == arguments.gigabytes and (work / "source").exists():
            (work / "source").rename(source)
        build(arguments, source, size)
    for _ in range(arguments.rounds):
        for size in sizes:
            command = rewrite_command(arguments, work / f"source{size}", work / "out", link=False)
            found[size].append(measured(command, work))
            shutil.rmtree(work / "out")
            log(f"{size} GB: {found[size][-1]}")
    return found


@contextmanager
def xfs(image: Path, place: Path):
    """Mount a fresh XFS file system from an image file, bypassing the page cache of the disk below."""
    with image.open("wb") as file:
        file.truncate(50 << 30)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    loop = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    place.mkdir()
    try:
        subprocess.run(["mount", loop, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
        image.unlink()
        place.rmdir()


def file_system(folder: Path) -> str:
    """Name the file system that a folder lies on."""
    found = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", folder], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def report(
    arguments: argparse.Namespace, rows: list[dict[str, float]], sizes: dict[float, list[Measured]], how: str
) -> str:
    """Write the tables as markdown."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    place = "Loop-mounted XFS" if arguments.xfs else file_system(arguments.work)
    loads = [row["load"] for row in rows]
    lines = [
        f"## {place}, {arguments.gigabytes:g} GB, {arguments.rounds} rounds",
        "",
        f"{platform.system()} {platform.release().split('-')[0]}, {os.cpu_count()} cores shared with other work (load "
        f"{min(loads):.1f} to {max(loads):.1f}), Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}. "
        f"Cold cache: `sync`, then `{how}`. "
        f"Process: {'`' + arguments.command + '`' if arguments.command else 'driver of `write_shards`'}.",
        "",
        "| method | wall, median (min to max) | ratio to `cp -r` of the same round, median (min to max) | the same, "
        "`cp` charged with its `sync` | kernel seconds | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    names = {
        "cp": "`cp -r --reflink=never`", "cp_auto": "`cp -r` (shares blocks by itself)",
        "rewrite": "rewrite, sharing blocks" if arguments.xfs else "rewrite, copying", "link": "rewrite, `--link`",
    }  # fmt: skip
    for key in [name for name in names if name in rows[0]]:
        seconds = [row[key] for row in rows]
        ratios = [row[key] / row["cp"] for row in rows]
        synced = [(row[key] + row[f"{key}_sync"]) / (row["cp"] + row["cp_sync"]) for row in rows]
        lines.append(
            f"| {names[key]} | {median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}) "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {median(synced):.2f} "
            f"| {median([row[key + '_system'] for row in rows]):.1f} | {max(row[key + '_mb'] for row in rows):.0f} MB |"
        )
    if sizes:
        lines += ["", "| source | wall, median (min to max) | seconds a GB | peak memory |", "|---|---|---|---|"]
    for size, runs in sizes.items():
        seconds = [run.seconds for run in runs]
        lines.append(
            f"| {size} GB | {median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}) "
            f"| {median(seconds) / size:.2f} | {max(run.peak_mb for run in runs):.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, help="an absent or empty folder with room for 46 GB; emptied at the end")
    parser.add_argument("--gigabytes", type=float, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--xfs", action="store_true", help="on a loop-mounted XFS inside --work")
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--command", help="process to time, with {source}, {out} and {link}")
    parser.add_argument("--side-files", type=Path, help="folder whose files the sources need next to the weights")
    parser.add_argument("--results", type=Path, help="append the tables to this file")
    parser.add_argument("--link", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and clean up."""
    arguments = parse()
    if arguments.child:
        child(*arguments.child, arguments.link)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    sizes: dict[float, list[Measured]] = {}
    try:
        how = drop_caches(arguments.work)
        if arguments.xfs:
            with xfs(arguments.work / "image", arguments.work / "mounted") as place:
                rows = compare(arguments, place, log)
        else:
            rows = compare(arguments, arguments.work, log)
            sizes = {} if arguments.no_growth else growth(arguments, arguments.work, log)
    finally:
        for name in ("source", "reference", "out", *(f"source{size}" for size in (1, 2, 4, 8, 16))):
            shutil.rmtree(arguments.work / name, ignore_errors=True)
    text = report(arguments, rows, sizes, how)
    print(text)
    if arguments.results:
        with arguments.results.open("a") as file:
            file.write("\n" + text)


if __name__ == "__main__":
    main()
