"""The lock, and what `make test-latest` says of releases newer than it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import latest
from tests.project.locked import LOCK, Difference, differences, locked_versions

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10.0", "3.11.0", "3.12.0", "3.13.0")
NEWER = [Difference("pytest", "99.0", "9.0"), Difference("numpy", "99.0", "2.0")]


def requirements():
    """Everything that the package and its extras ask for."""
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(
        r"^(?:dependencies|[\w-]+) = (\[\n?.*?\])\n", text.partition("[project.scripts]")[0], re.DOTALL | re.MULTILINE
    )
    named = [
        Requirement(one)
        for found in lists
        for one in re.findall(r'"([A-Za-z][\w.-]*(?:\[[^\]]*\])?[><=][^"]*)"', found)
    ]
    return [one for one in named if one.name not in ("lm-eval", "babel", "torch")]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_all_that_pyproject_asks_for(python):
    """Who adds a dependency renews the lock."""
    locked = locked_versions(LOCK.read_text(), python)
    asked = requirements()
    assert {"transformers", "hypothesis", "hatchling", "peft"} <= {one.name for one in asked}
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    for one in asked:
        if one.marker is None or one.marker.evaluate(environment):
            assert one.specifier.contains(locked[canonicalize_name(one.name)]), one
    assert "torch" in locked


def test_the_lock_says_nothing_of_the_machine_that_made_it():
    assert not re.search(r"://|^\s*--|@|\.whl", LOCK.read_text(), re.MULTILINE)


def test_a_lock_with_two_versions_or_a_range_is_refused():
    assert locked_versions("a_b==1  # why\nc==2 ; python_full_version < '3.0'\n", "3.11.0") == {"a-b": "1"}
    for text in ("a==1\na==2\n", "a>=1\n"):
        with pytest.raises(ValueError, match="one exact version"):
            locked_versions(text)


def test_versions_other_than_the_locks():
    found = differences({"a": "1.10", "b": "1", "c": "1", "d": "1", "pip": "9"}, {"a": "1.9", "b": "2", "c": "1"})
    assert [(str(one), one.newer) for one in found] == [
        ("a 1.10 (lock: 1.9)", True),
        ("b 1 (lock: 2)", False),
        ("d 1 (not in the lock)", True),
    ]


def test_a_failure_names_the_newer_release_that_its_traceback_passes():
    trace = (
        "tests/x.py:3: in test\nlib/site-packages/numpy/a.py:1: in f\nlib/site-packages/_pytest/b.py:2: in g\n"
        "E   TypeError: no f\n"
    )
    said = latest.verdict({"tests/x.py::test": trace}, NEWER)
    assert "newer pytest 99.0 (lock: 9.0), numpy 99.0 (lock: 2.0) breaks tests/x.py::test\n    TypeError: no f" in said
    assert latest.blamed("lib/site-packages/numpy/a.py:1", NEWER) == NEWER[1:]
    said = latest.verdict({"x": "a.py:1\nE   no"}, NEWER)
    assert "x fails; its traceback passes no newer release\n    no\n" in said
    assert "no release is newer than the lock" in latest.verdict({"a": ""}, [])


def test_the_files_that_the_latest_releases_are_tried_on_are_there():
    assert [name for name in latest.FILES if not (ROOT / "tests" / name).is_file()] == []
