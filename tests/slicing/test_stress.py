"""A few kills of each command at random moments; `python -m tests.stress.kill` does many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {"slice: vocabulary", "slice: vocabulary and structure", "slice: weights", "count", "heal", "run"}


@pytest.mark.robustness
def test_commands_survive_kills(tmp_path):
    program = [sys.executable, "-m", "tests.stress.kill", "--kills", "1", "--corpus-mb", "12", "--json"]
    done = subprocess.run(
        program, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() >= COMMANDS
    for name, counts in found.items():
        assert counts["kills"] == 1, name
        assert sum(count for what, count in counts.items() if what.startswith("target: ")) == 1, name
