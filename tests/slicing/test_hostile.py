"""Folders that nobody would make on purpose, disks that are full or read-only, sources that change, two runs at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langslice.demonstrations import Demonstration, write_demonstrations
from langslice.errors import CheckpointError, LangsliceError, OutputError
from langslice.planning.weights import prune_staged
from langslice.slicing import main as job
from tests.outputs import lasting

KEEP = [Demonstration("mt", parts=("the man said", "a house in the town"))]


@pytest.fixture
def model(zoo, tmp_path):
    return Path(shutil.copytree(zoo("llama"), tmp_path / "model"))


def sliced(model: Path, out: Path, **choice):
    return job.slice(model, out, scripts="Latn", verify=False, **choice)


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["two\nlines.txt", "\u202etxt.md", "-rf.txt", "--carry.md", " .txt", "x" * 250 + ".txt", "..hidden.md", "é.md"],
)
def test_strange_names_are_carried_as_they_are(model, tmp_path, name):
    (model / name).write_text("theirs")
    sliced(model, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "theirs"


def test_names_that_differ_in_case_alone_stay_apart(model, tmp_path):
    for name in ("notes.md", "NOTES.md"):
        (model / name).write_text(name)
    sliced(model, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_text() for name in ("notes.md", "NOTES.md")] == ["notes.md", "NOTES.md"]


def fifo(model: Path) -> None:
    os.mkfifo(model / "pipe.txt")


def bound_socket(model: Path) -> None:
    here = Path.cwd()
    os.chdir(model)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("talk.txt")
    finally:
        os.chdir(here)


def not_utf8(model: Path) -> None:
    Path(os.fsdecode(os.fsencode(model) + b"/\xff.txt")).write_text("x")


HOSTILE: list[tuple[Callable[[Path], object], str]] = [
    (fifo, "pipe.txt is neither a file nor a folder"),
    (bound_socket, "talk.txt is neither a file nor a folder"),
    (not_utf8, r"'\\udcff.txt' is a name that is not UTF-8"),
    (
        lambda model: (model / "a.md").symlink_to("/etc/hostname"),
        "a.md is a link that leaves the folder, to /etc/hostname",
    ),
    (lambda model: (model / "a.md").symlink_to("a.md"), "a.md is a broken link"),
    (lambda model: (model / "a").symlink_to("."), "a is a link to a folder, which is not followed"),
    (lambda model: (model / "a").symlink_to("/"), "a is a link to a folder, which is not followed"),
    (
        lambda model: (model / "\u202efoo.dat").write_text("x"),
        r"'\\u202efoo.dat' in .* is not a file that langslice knows",
    ),
    (lambda model: (model / "-x y.dat").write_text("x"), "`leave_out='-x y.dat'`"),
]


@pytest.mark.parametrize(("hostile", "message"), HOSTILE)
def test_what_cannot_be_carried_is_refused_by_name(model, tmp_path, hostile, message):
    hostile(model)
    with pytest.raises(CheckpointError, match=message):
        sliced(model, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_links_inside_the_folder_and_of_the_hub_are_followed(zoo, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs = tmp_path / "models--a--b" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(zoo("llama").iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (snapshot / "a.md").write_text("here")
    (snapshot / "b.md").symlink_to("a.md")
    sliced(snapshot, tmp_path / "out")
    assert (tmp_path / "out/b.md").read_text() == "here"
    assert not (tmp_path / "out/config.json").is_symlink()


# ---- disks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system in memory, of some size and with some options."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", place], check=True)


def write_plan(model: Path, folder: Path, out: Path) -> None:
    from langslice.planning.plan import save_plan

    save_plan(job.plan(model, scripts="Latn"), out)


def write_counts(model: Path, folder: Path, out: Path) -> None:
    (folder / "text.txt").write_text("the man\n" * 100)
    job.count(model, [str(folder / "text.txt")]).save(out)


def write_demos(model: Path, folder: Path, out: Path) -> None:
    write_demonstrations(KEEP * 200, out)


def write_scores(model: Path, folder: Path, out: Path) -> None:
    from langslice.model.checkpoint import open_checkpoint
    from langslice.scoring import compute

    compute(open_checkpoint(model), "neurons", "l2").save(out)


def write_results(model: Path, folder: Path, out: Path) -> None:
    from langslice.evaluation.results import Evaluation

    Evaluation({}, {}, (), {"original": ["a note"] * 2000}).save(out)


def write_features(model: Path, folder: Path, out: Path) -> None:
    from langslice.cli.commands.features import features

    write_demonstrations(KEEP, folder / "mt.jsonl")
    features(model=str(model), out=out, demos=[str(folder / "mt.jsonl")], quiet=True)


WRITERS = [write_plan, write_counts, write_demos, write_scores, write_results, write_features]


FULL = r"the disk is too small for the output\n.*\n  it became full while writing"


@pytest.mark.parametrize("write", WRITERS)
def test_results_on_a_disk_that_is_full(model, tmp_path, disk, write):
    place = disk("size=64k")
    with pytest.raises(OSError, match="No space left"):
        (place / "filler").write_bytes(bytes(1 << 17))
    with pytest.raises(OutputError, match=FULL):
        write(model, tmp_path, place / "out")
    assert [path.name for path in place.iterdir()] == ["filler"]


@pytest.mark.parametrize("write", WRITERS)
def test_results_on_a_disk_that_cannot_be_written(model, tmp_path, disk, write):
    place = disk("size=1m,ro")
    with pytest.raises(OutputError, match=r"cannot (write next to|be written)"):
        write(model, tmp_path, place / "out")


@pytest.mark.parametrize("during", ["shards", "pruning"])
def test_slices_on_a_disk_that_fills_up(model, tmp_path, disk, monkeypatch, during):
    write_demonstrations(KEEP, tmp_path / "mt.jsonl")
    choice = {"sparsity": 0.3, "weights_by": "sparsegpt", "keep_demos": str(tmp_path / "mt.jsonl")}
    sliced(model, tmp_path / "whole", **choice)
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in (tmp_path / "whole").iterdir())
    place = disk(f"size={needed + 12288 if during == 'pruning' else needed // 2}")
    with pytest.raises(OutputError, match=r"the disk is too small for the output\n.*\n  expected .* bytes, found"):
        sliced(model, place / "out", **choice)
    monkeypatch.setattr(
        "langslice.writing.shards.check_space", lambda folder, needed_bytes: None
    )  # somebody else fills it
    reached = []
    monkeypatch.setattr("langslice.slicing.main.prune_staged", lambda *given: reached.append(1) or prune_staged(*given))
    with pytest.raises(OutputError, match=FULL if during == "pruning" else "it became full while writing"):
        sliced(model, place / "out", **choice)
    assert bool(reached) == (during == "pruning")
    assert list(place.iterdir()) == []


def test_a_slice_on_a_disk_that_cannot_be_written(model, disk):
    place = disk("size=64m,ro")
    with pytest.raises(OutputError, match=f"cannot write next to the output\n  {place}\n  Read-only file system"):
        sliced(model, place / "out")


# ---- others at work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["weights", "side file", "gone"])
def test_a_source_that_changes_meanwhile(model, tmp_path, monkeypatch, change):
    (model / "notes.md").write_text("before")
    write = job.write_shards

    def changing(*given, **options):
        written = write(*given, **options)
        if change == "weights":
            with (model / "model.safetensors").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x01")
        elif change == "side file":
            (model / "notes.md").write_text("after")
        else:
            (model / "notes.md").unlink()
        return written

    monkeypatch.setattr(job, "write_shards", changing)
    with pytest.raises(
        CheckpointError, match=r"the source changed while it was read\n  .*(model.safetensors|notes.md)"
    ):
        sliced(model, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_two_slices_to_one_output(model, tmp_path):
    """One of them wins, whole; the other says that it came second."""
    start, ends = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        try:
            ends.append(sliced(model, tmp_path / "out"))
        except LangsliceError as error:
            ends.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    losers = [end for end in ends if isinstance(end, LangsliceError)]
    assert len(losers) == 1
    assert "the output" in losers[0].message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    sliced(model, tmp_path / "alone")
    one, other = (lasting(tmp_path / name) for name in ("out", "alone"))
    assert one == other
