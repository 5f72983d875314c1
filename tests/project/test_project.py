"""The project's address, in messages and in every file that states it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from langslice.errors import PROJECT, TokenizerError
from langslice.tokenizer.document import refuse_unknown_keys
from langslice.tokenizer.rewrite import processor_ids
from langslice.version import __version__

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["pyproject.toml", "CITATION.cff", "SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"])
def test_the_address_is_the_same_everywhere(name):
    assert set(re.findall(r"https://github\.com/[\w-]+/langslice\b", (ROOT / name).read_text())) == {PROJECT}


def test_the_version_to_cite_is_this_one():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_who_is_asked_to_open_an_issue_is_told_where():
    for refused in (lambda: refuse_unknown_keys({"new": 1}, set(), "x"), lambda: processor_ids({"type": "New"}, "x")):
        with pytest.raises(TokenizerError) as stop:
            refused()
        assert f"open an issue with the model's name at {PROJECT}/issues" in str(stop.value)
    elsewhere = [path for path in (ROOT / "langslice").rglob("*.py") if re.search(r"an issue", path.read_text())]
    assert elsewhere == [ROOT / "langslice/errors.py"]


def test_few_modules_stand_beside_the_rooms():
    loose = {path.stem for path in (ROOT / "langslice").glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= 8, loose


def test_the_changelog_is_in_order_and_says_each_thing_once():
    """Merges by union double entries and lines: no two begin alike."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    # After a release, nothing stands under "Unreleased" yet.
    latest = next(section for section in text.split("\n## ")[1:] if "### " in section)
    assert re.findall(r"^### (\w+)", latest, re.M) == ["Added", "Changed", "Fixed"]
    starts = re.findall(r"^(- .{24})", latest, re.M)
    lines = [line for line in latest.splitlines() if len(line) > 40]
    assert [each for each in starts if starts.count(each) > 1] == []
    assert [each for each in lines if lines.count(each) > 1] == []
