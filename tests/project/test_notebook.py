"""The notebook of a new user's first ten minutes: its cells run, and print what it says they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "first_slice.ipynb"


@pytest.mark.usefixtures("one_thread")
def test_the_first_slice_runs_and_prints_what_is_saved(tmp_path, monkeypatch, capsys):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        code = "".join(cell["source"])
        saved = "".join("".join(each["text"]) for each in cell["outputs"] if each["output_type"] == "stream")
        exec(compile(code, f"cell {number}", "exec"), names)
        assert capsys.readouterr().out == saved, code
        assert cell["outputs"], code
    shown = next(cell for cell in cells if "".join(cell["source"]) == "result")["outputs"][0]["data"]
    assert "".join(shown["text/plain"]) == repr(names["result"])
    assert "".join(shown["text/html"]) == names["result"]._repr_html_()
