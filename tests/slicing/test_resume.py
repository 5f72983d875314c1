"""`langslice slice --sparsity`, killed while it prunes, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from langslice.demonstrations import Demonstration, write_demonstrations
from langslice.errors import Interruption
from langslice.slicing import main as job
from tests.outputs import lasting

pytestmark = pytest.mark.usefixtures("one_thread")

KEEP = [Demonstration("mt", parts=("the man said", "a house in the town")), Demonstration("mt", parts=("two words",))]

STOPPED = """
import os, signal, sys
from langslice.cli import app as cli
from langslice.sparsity.journal import Journal
finish, count = Journal._finish, int(sys.argv.pop(1))
number = int(sys.argv.pop(1))
def stopping(self, block, sparsity):
    finish(self, block, sparsity)
    if len(self.finished) == count:
        os.kill(os.getpid(), number)
Journal._finish = stopping
cli.main()
"""


def arguments(model: Path, folder: Path, *more: str) -> list[str]:
    demos = folder / "mt.jsonl"
    if not demos.exists():
        write_demonstrations(KEEP, demos)
    chosen = ["--sparsity", "0.3", "--keep-demos", str(demos), "--drop-layers", "0"]
    return ["slice", str(model), *chosen, "-o", str(folder / "out"), *more]


def stop(after_blocks: int, number: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", STOPPED, str(after_blocks), str(int(number)), *arguments]
    return subprocess.run(
        program, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def run(arguments: list[str], capsys) -> str:
    """The same command in this process; gives what it printed."""
    from langslice.cli import app as cli

    before = sys.argv
    sys.argv = ["langslice", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    printed = capsys.readouterr()
    assert ended.value.code in (0, None), printed.err
    return " ".join((printed.out + printed.err).split())


def partials(folder: Path) -> list[Path]:
    return sorted(folder.glob(".out.partial-*"))


@pytest.fixture(scope="module")
def undisturbed(zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    arguments(zoo("llama"), folder)
    job.slice(zoo("llama"), folder / "out", sparsity=0.3, keep_demos=[str(folder / "mt.jsonl")], drop_layers=["0"])
    return lasting(folder / "out")


def same_but_for_place(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Equal byte by byte, but for the path of the demonstrations in the record."""
    assert found.keys() == expected.keys()
    for name in found:
        if name != "slice.json":
            assert found[name] == expected[name], name
    one, other = (json.loads(files["slice.json"]) for files in (found, expected))
    for record in (one, other):
        for place in (record["sparsity"]["request"], record["plan"]["weights"], record["plan"]["request"]):
            place["keep_demos"] = [Path(name).name for name in place["keep_demos"]]
    assert one == other


@pytest.mark.robustness
def test_a_killed_command_goes_on_behind_its_last_block(zoo, tmp_path, undisturbed, capsys):
    command = arguments(zoo("llama"), tmp_path)
    assert stop(1, signal.SIGKILL, command).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (left,) = partials(tmp_path)
    state = json.loads((left / ".unfinished/pruning/sparsity.json").read_text())
    assert state["finished"] == ["model.layers.0"]
    printed = run(command, capsys)
    assert "continued after 1 of 2 blocks, which a run that was stopped had pruned" in printed
    assert partials(tmp_path) == []
    same_but_for_place(lasting(tmp_path / "out"), undisturbed)


@pytest.mark.robustness
def test_a_terminated_command_says_that_it_can_go_on(zoo, tmp_path, undisturbed, capsys):
    command = arguments(zoo("llama"), tmp_path)
    stopped = stop(1, signal.SIGTERM, command)
    assert stopped.returncode == 128 + signal.SIGTERM
    (left,) = partials(tmp_path)
    assert stopped.stderr == (
        f"error: interrupted; what was finished is kept\n  {left}\n"
        "hint: the same command goes on from there; remove the folder if you do not want it\n"
    )
    run(command, capsys)
    same_but_for_place(lasting(tmp_path / "out"), undisturbed)


@pytest.fixture
def interrupted(zoo, tmp_path, monkeypatch):
    """A copy of a model, and an unfinished slice of it whose first block is pruned."""
    import shutil

    from langslice.sparsity.journal import Journal

    finish = Journal._finish

    def interrupt(self, block, sparsity):
        finish(self, block, sparsity)
        raise KeyboardInterrupt

    model = Path(shutil.copytree(zoo("llama"), tmp_path / "model"))
    choice = {"sparsity": 0.3, "keep_demos": str(tmp_path / "mt.jsonl"), "verify": False}
    write_demonstrations(KEEP, tmp_path / "mt.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_finish", interrupt)
        with pytest.raises(Interruption, match="interrupted; what was finished is kept") as caught:
            job.slice(model, tmp_path / "out", **choice)
    assert caught.value.exit_code == 130
    return model, choice


def test_an_interrupted_call_keeps_what_is_finished(interrupted, tmp_path):
    model, choice = interrupted
    done = job.slice(model, tmp_path / "out", **choice)
    assert done.notes == ("continued after 1 of 3 blocks, which a run that was stopped had pruned",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "mt.jsonl", "out"]
    job.slice(model, tmp_path / "whole", **choice)
    assert lasting(tmp_path / "out") == lasting(tmp_path / "whole")


@pytest.mark.parametrize("change", ["option", "demonstrations", "source", "state"])
def test_other_work_does_not_go_on_from_it(interrupted, tmp_path, change):
    model, choice = interrupted
    (left,) = partials(tmp_path)
    if change == "option":
        choice["sparsity"] = 0.5
    elif change == "demonstrations":
        write_demonstrations(KEEP[:1], tmp_path / "mt.jsonl")
    elif change == "source":
        weights = bytearray((model / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (model / "model.safetensors").write_bytes(weights)
    else:
        (left / ".unfinished/cut.json").write_text("{")
    done = job.slice(model, tmp_path / "out", **choice)
    assert done.notes == (f"removed {left}, left unfinished by a run that was killed",)
    assert partials(tmp_path) == []
    job.slice(model, tmp_path / "whole", **choice)
    assert lasting(tmp_path / "out") == lasting(tmp_path / "whole")


def test_an_interrupted_cut_leaves_nothing(zoo, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_shards", interrupted)
    write_demonstrations(KEEP, tmp_path / "mt.jsonl")
    with pytest.raises(KeyboardInterrupt):
        job.slice(zoo("llama"), tmp_path / "out", sparsity=0.3, keep_demos=str(tmp_path / "mt.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mt.jsonl"]
