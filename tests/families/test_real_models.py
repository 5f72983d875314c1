"""Real trained models through derived rows, with their rows taken out of the tables: the same bytes as with them."""

from __future__ import annotations

import json

import pytest

import langslice
from langslice.model import families, layer_fields

# Folder -> what is cut of it.
CUTS = {
    "multilingual-e5-small-enpt": {"languages": "pt", "drop_layers": "3"},
    "multilingual-e5-small": {"languages": "ko,en", "drop_layers": "3,7"},
    "whisper-base": {"languages": "ko", "drop_layers": ["encoder.2", "decoder.4"]},
    "gemma-3-270m": {"languages": "ko", "drop_layers": "4"},
}
_PAPERS = ("slice.json", "README.md")  # these name the row, and the command


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.models(name)) for name in CUTS])
def test_the_same_bytes_without_the_row(name, models, tmp_path, monkeypatch):
    model_type = json.loads((models / name / "config.json").read_text())["model_type"]
    with_row = langslice.slice(models / name, tmp_path / "table", verify=False, **CUTS[name])
    assert not with_row.plan.row
    monkeypatch.delitem(families._BY_TYPE, model_type)
    monkeypatch.delitem(layer_fields._BY_TYPE, model_type)
    derived = langslice.slice(models / name, tmp_path / "derived", **CUTS[name])
    assert derived.plan.row
    assert derived.verification.passed
    files = {path.relative_to(tmp_path / "table") for path in (tmp_path / "table").rglob("*") if path.is_file()}
    assert files == {p.relative_to(tmp_path / "derived") for p in (tmp_path / "derived").rglob("*") if p.is_file()}
    for path in files:
        if path.name not in _PAPERS:
            assert (tmp_path / "table" / path).read_bytes() == (tmp_path / "derived" / path).read_bytes(), path
