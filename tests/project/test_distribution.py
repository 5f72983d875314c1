"""What `make dist` checks of archives, and what README says of their size; `make test-dist` and `make test-extras` install them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from tests.project import distribution
from tests.project.extras import EXTRAS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The files of a wheel, as the package is here."""
    path = tmp_path_factory.mktemp("wheel") / "langslice-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((ROOT / "langslice").rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(ROOT))
        archive.writestr("langslice-0.dist-info/METADATA", "[docs](https://example.org/docs) [below](#below)")
    return path


def without(wheel, target, name):
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as archive:
        for entry in source.namelist():
            if entry != name:
                archive.writestr(entry, source.read(entry))
    return target


def test_a_wheel_has_the_packaged_model_and_stays_below_its_limit(wheel, tmp_path, monkeypatch):
    assert distribution.faults(wheel) == [f"{wheel.stat().st_size:,} bytes, more than 11,000,000"]  # uncompressed
    monkeypatch.setitem(distribution.LIMITS, ".whl", wheel.stat().st_size)
    assert distribution.faults(wheel) == []
    model = "langslice/mini/model/model.safetensors"
    assert distribution.faults(without(wheel, tmp_path / "a.whl", model)) == [f"{model} is not in it"]
    with zipfile.ZipFile(tmp_path / "a.whl", "a") as archive:
        archive.writestr(model, b"short")
        archive.writestr("tests/x.py", b"")
    with zipfile.ZipFile(
        without(tmp_path / "a.whl", tmp_path / "b.whl", "langslice-0.dist-info/METADATA"), "a"
    ) as archive:
        archive.writestr("langslice-0.dist-info/METADATA", "[docs](docs/README.md)")
    assert "README leads to docs/README.md, which an index does not have" in distribution.faults(tmp_path / "b.whl")
    assert distribution.faults(tmp_path / "a.whl") == [
        f"{model} has 5 bytes, not {(ROOT / model).stat().st_size:,}",
        "tests/x.py is in it",
    ]


def test_readme_states_the_limit():
    (stated,) = re.findall(
        r"The wheel has [\d.]+ MB, at most (\d+) MB", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert int(stated) * 1_000_000 == distribution.LIMITS[".whl"]


def test_every_extra_that_serves_users_is_tried():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[project.scripts]")[0]
    assert {extra.name for extra in EXTRAS} == set(re.findall(r"^([\w-]+) = \[", section, re.M)) - {"training", "dev"}


def test_every_target_that_a_workflow_makes_is_there():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", text, re.M))
    files = [ROOT / ".ci/run", *(ROOT / ".github/workflows").glob("*.yml")]
    for file in files:
        made = set(re.findall(r"\bmake ([\w-]+)", re.sub(r"#.*", "", file.read_text(encoding="utf-8"))))
        assert made <= targets, file.name
    assert any("make dist" in file.read_text(encoding="utf-8") for file in files)
