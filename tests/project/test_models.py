"""Whole trained models: `make models` fetches them, and their tests say where they are absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = """
import pytest
@pytest.mark.models{names}
def test_one(models):
    assert (models / "some-model" / "README.md").is_file()
"""


def run_test(tmp_path, names, **environment):
    """What pytest says of a test that needs these models, of a folder that holds `some-model`."""
    folder = tmp_path / "models"
    (folder / "some-model").mkdir(parents=True)
    (folder / "some-model" / "README.md").touch()
    place = tmp_path / "tests"
    place.mkdir()
    (place / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (place / "test_it.py").write_text(TEST.replace("{names}", names))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", place, "-p", "no:cacheprovider", place],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LANGSLICE_MODELS": str(folder), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.stdout


def test_a_test_runs_where_its_models_are(tmp_path):
    assert "1 passed" in run_test(tmp_path, '("some-model")')


def test_a_test_without_its_model_says_so(tmp_path):
    said = run_test(tmp_path, '("some-model", "other")')
    assert "1 skipped" in said
    assert f"no other in {tmp_path / 'models'}: `make models` fetches it" in said


def test_a_needed_model_that_is_absent_fails(tmp_path):
    assert "1 error" in run_test(tmp_path, '("some-model", "other")', LANGSLICE_NEED_MODELS="some-model other")


def test_the_mark_names_models(tmp_path):
    assert "1 error" in run_test(tmp_path, "")


def make_models(tmp_path, script):
    fetch = tmp_path / "fetch.py"
    if script:
        fetch.write_text(script)
    return subprocess.run(
        ["make", "--no-print-directory", "-o", "setup-dev", "models",
         f"BIN={Path(sys.executable).parent}", f"LANGSLICE_FETCH_MODELS={fetch}",
         f"LANGSLICE_MODELS={tmp_path / 'models'}", "MODELS=a b"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_make_models_calls_the_script(tmp_path):
    run = make_models(tmp_path, "import sys; print(sys.argv[1:])")
    assert (run.returncode, run.stdout.strip()) == (0, str([str(tmp_path / "models"), "a", "b"]))


def test_a_fetch_that_fails_says_so_in_a_line(tmp_path):
    run = make_models(tmp_path, "import sys; sys.exit(1)")
    assert run.returncode == 2
    assert f"models: a b could not be fetched into {tmp_path / 'models'}; the line above says why" in run.stderr


def test_a_script_that_is_absent_is_named(tmp_path):
    run = make_models(tmp_path, "")
    assert run.returncode == 2
    assert f"models: no script at {tmp_path / 'fetch.py'}; set LANGSLICE_FETCH_MODELS" in run.stderr
