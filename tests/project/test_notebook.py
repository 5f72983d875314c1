"""The notebooks: their cells run, and show what is saved in them; the search engine on a trained model as well."""

from __future__ import annotations

import json
import re
from math import isclose

import pytest

from tests.project.notebooks import FOLDER, NOTEBOOKS, code_cells, run_cell, run_notebook, without_counts

DECIMAL = re.compile(r"\d+\.\d+")


def alike(one, other):
    """Whether two outputs say the same, up to the last digits of what was measured, in which processors differ."""
    numbers = zip(DECIMAL.findall(one), DECIMAL.findall(other), strict=False)
    return DECIMAL.sub("#", one) == DECIMAL.sub("#", other) and all(
        isclose(float(a), float(b), rel_tol=0.01, abs_tol=0.02) for a, b in numbers
    )


def test_there_is_a_notebook_for_each_job():
    assert {path.stem for path in NOTEBOOKS} == {
        "first_slice", "search_engine", "korean_llm", "pruning_by_demonstrations", "your_own_family",
    }  # fmt: skip


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_show_what_is_saved(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = code_cells(notebook)
    shown = run_notebook(notebook)
    assert len(cells) >= 4
    for cell, outputs in zip(cells, shown, strict=True):
        now, saved = json.dumps(without_counts(outputs)), json.dumps(without_counts(cell["outputs"]))
        assert alike(now, saved), "".join(cell["source"])
    assert sum(bool(outputs) for outputs in shown) >= 4


def test_only_the_last_digits_may_differ():
    assert alike("ko: 2.73, 30 steps", "ko: 2.74, 30 steps")
    for other in ("ko: 2.79, 30 steps", "ko: 2.73, 31 steps", "en: 2.73, 30 steps", "ko: 2.73, 30 steps 1.0"):
        assert not alike("ko: 2.73, 30 steps", other)


def test_a_cell_shows_what_it_prints_and_its_last_value():
    names = {}
    assert without_counts(run_cell("x = 2\nprint('a')\nx + 1", names)) == [
        {"type": "stream", "text": "a\n", "data": {}},
        {"type": "execute_result", "text": "", "data": {"text/plain": "3"}},
    ]
    assert run_cell("x = 3", names) == [] and names["x"] == 3


@pytest.mark.models("multilingual-e5-small")
@pytest.mark.usefixtures("one_thread")
def test_the_search_engine_on_a_trained_model(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "".join("".join(each.get("text", [])) for outputs in run_notebook(
        FOLDER / "search_engine.ipynb", str(models / "multilingual-e5-small")) for each in outputs)  # fmt: skip
    assert "100 of 100 vectors are equal, bit for bit" in text
    (found,) = re.findall(r"original: (\d+) of 50", text)
    assert int(found) > 45
