"""Single files and folders of results: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from langslice.errors import OutputError
from langslice.files.atomic_output import check_writable, staging_file, staging_folder, staging_results


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "counts"
    target.write_text("old")
    with staging_file(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
        assert partial.name.startswith(f".counts.partial-{os.getpid()}-")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["counts"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_file_that_fails_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "counts"
    target.write_text("old")
    with pytest.raises(type(error)), staging_file(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["counts"]


def test_a_full_disk_is_told(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    message = "the disk is too small for the output\n.*\n  it became full while writing"
    with pytest.raises(OutputError, match=message), staging_file(tmp_path / "a"):
        raise full
    with pytest.raises(OutputError, match=message), staging_results(tmp_path / "b"):
        raise full
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from langslice.files import atomic_output as staging
with getattr(staging, sys.argv[1])(Path(sys.argv[2])) as partial:
    (partial / "half" if partial.is_dir() else partial).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["staging_file", "staging_results"])
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path, kind):
    program = [sys.executable, "-c", KILLED, kind, str(tmp_path / "out")]
    assert subprocess.run(program, cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".out.partial-")
    if kind == "staging_file":
        with staging_file(tmp_path / "out") as partial:
            partial.write_text("whole")
    else:
        with staging_results(tmp_path / "out") as partial:
            (partial / "table").write_text("whole")
        assert names(tmp_path / "out") == ["table"]
    assert names(tmp_path) == ["out"]


def test_results_join_those_of_other_names(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("mine", "table"):
        (tmp_path / "out" / name).write_text("old")
    with staging_results(tmp_path / "out") as partial:
        (partial / "table").write_text("new")
        assert (tmp_path / "out/table").read_text() == "old"
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"mine": "old", "table": "new"}
    assert names(tmp_path) == ["out"]


def test_special_files_and_links_are_written_as_they_are(tmp_path):
    with staging_file(Path("/dev/null")) as partial:
        assert partial == Path("/dev/null")
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with staging_file(tmp_path / "link") as partial:
        partial.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="cannot write next to the output"), staging_file(tmp_path / "loop" / "x"):
        pass


def test_folders_that_cannot_be_written(tmp_path):
    message = r"cannot write next to the output\n  /proc/\d+\n"
    with pytest.raises(OutputError, match=message), staging_file(Path("/proc/self/counts")):
        pass
    with pytest.raises(OutputError, match=f"{tmp_path / 'missing'} cannot be written to"):
        check_writable(tmp_path / "missing")


def test_a_dead_folder_of_the_same_process_number_is_removed(tmp_path):
    """In a container every run may have the same number; the lock says that nobody works there."""
    stale = tmp_path / f".o.partial-{os.getpid()}-0123abcd"
    stale.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    notices: list[str] = []
    with staging_folder(tmp_path / "o", source=source, notice=notices.append) as folder:
        (folder / "config.json").write_text("{}")
        with staging_folder(tmp_path / "o", source=source, notice=notices.append, overwrite=True) as other:
            (other / "config.json").write_text("[]")
        # The first is not taken for a dead one, although its number is the second's own.
        assert folder.is_dir()
        (tmp_path / "o" / "config.json").unlink()
        (tmp_path / "o").rmdir()
    assert notices == [f"removed {stale}, left unfinished by a run that was killed"]
    assert (tmp_path / "o/config.json").read_text() == "{}"


def test_two_that_end_at_once_do_not_mix(tmp_path, monkeypatch):
    """The other output appears between the last look and the rename."""
    source = tmp_path / "source"
    source.mkdir()
    rename = Path.rename

    def late(self, target):
        if self.name.startswith(".o.partial-"):
            target.mkdir()
            (target / "config.json").write_text("theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    message = "appeared while it was being written"
    with pytest.raises(OutputError, match=message), staging_folder(tmp_path / "o", source=source) as folder:
        (folder / "config.json").write_text("ours")
    assert (tmp_path / "o/config.json").read_text() == "theirs"
    assert names(tmp_path) == ["o", "source"]
