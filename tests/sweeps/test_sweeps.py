"""Sweeps: the grid of a recipe, runs that survive a kill, and the same table from processes and from Ray."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import pytest

from langslice.cli import app as cli
from langslice.errors import ClusterError, RecipeError
from langslice.files.folder_lock import locked
from langslice.recipes.content import content_of, digest
from langslice.recipes.document import Recipe
from langslice.reporting.line_chart import ChartLine, ChartPoint, line_chart
from langslice.sweeps import scheduler
from langslice.sweeps.main import sweep
from langslice.sweeps.recipe import check_grid, expand, load_grid
from langslice.sweeps.scheduler import RESULT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, and text for it."""
    from tests.zoo import add_tokenizer, build

    root = tmp_path_factory.mktemp("sweep")
    add_tokenizer(build("llama", root / "model"))
    (root / "data" / "parallel").mkdir(parents=True)
    (root / "data" / "parallel" / "en.txt").write_text(
        "the sand and the moon\nlast summer in the land\nsend me a letter\n"
    )
    (root / "data" / "parallel" / "ko.txt").write_text("가감 까\n나 다 라\n마 바\n")
    return root


def recipe_of(tiny, **changes):
    return {
        "model": str(tiny / "model"),
        "slice": {"scripts": ["Latn", "Latn,Hang"], "max_vocab": [94, 98, 102, 106, 110, 114]},
        "evaluate": {
            "tasks": "perplexity", "languages": "en,ko", "data": str(tiny / "data"), "device": "cpu", "resamples": 100,
        },
        **changes,
    }  # fmt: skip


def small(tiny):
    return recipe_of(tiny, slice={"scripts": "Latn", "max_vocab": [70, 80]})


def results_of(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"runs/*/{RESULT}")}


def test_every_list_spans_an_axis():
    runs = expand(
        Recipe({"model": ["a", "b"], "slice": {"max_vocab": [1, 2, 3], "languages": "ko,en"}, "evaluate": {"limit": 5}})
    )
    assert len(runs) == 6
    assert runs[1].axes == {"model": "a", "slice.max_vocab": "2"}
    assert runs[5].recipe == {"model": "b", "slice": {"max_vocab": 3, "languages": "ko,en"}, "evaluate": {"limit": 5}}
    assert runs[5].name == "model=b, slice.max_vocab=3"


def test_a_list_in_a_list_is_one_value_and_null_leaves_out():
    runs = expand(
        Recipe(
            {"model": "a", "slice": {"corpus": [["x", "y"], ["z"]], "coverage": [None, 0.9]}, "evaluate": {"limit": 5}}
        )
    )
    assert [run.recipe["slice"] for run in runs] == [
        {"corpus": ["x", "y"]},
        {"corpus": ["x", "y"], "coverage": 0.9},
        {"corpus": ["z"]},
        {"corpus": ["z"], "coverage": 0.9},
    ]
    assert runs[0].axes == {"slice.corpus": "x,y", "slice.coverage": "none"}
    whole = expand(Recipe({"model": "a", "slice": [None, {"languages": ["ko", "en"]}], "evaluate": {"limit": 5}}))
    assert [run.steps for run in whole] == [(), ("slice",), ("slice",)]
    assert whole[2].axes == {"slice": "languages=ko,en", "slice.languages": "en"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (["a"], "r.yaml: expected a mapping, found list"),
        ({"evaluate": {"limit": 1}}, "r.yaml: `model` is missing"),
        ({"model": "a"}, "r.yaml: `evaluate` is missing"),
        ({"model": "a", "evalute": {}}, "r.yaml: unknown entry `evalute`\nhint: did you mean `evaluate`?"),
        ({"model": "a", "slice": {"langauges": "ko"}, "evaluate": {"limit": 1}}, "slice: unknown entry `langauges`"),
        ({"model": "a", "slice": "ko", "evaluate": {"limit": 1}}, "`slice` must be a mapping, found str"),
        ({"model": 3, "evaluate": {"limit": 1}}, "`model` must be text, found 3"),
        ({"model": "a", "evaluate": {"limit": [1, 1]}}, "two points of the grid are the same: evaluate.limit=1"),
        (
            {"model": "a", "evaluate": {"tasks": "translate,xnly"}},
            "evaluate: unknown task 'xnly'\nhint: did you mean xnli?",
        ),
        ({"model": "a", "evaluate": {"task": "xnli"}}, "evaluate: unknown entry `task`\nhint: did you mean `tasks`?"),
    ],
)
def test_recipes_that_are_not_understood(document, message):
    with pytest.raises(RecipeError) as caught:
        expand(check_grid(Recipe(document, "r.yaml")))
    assert message in str(caught.value)


def test_recipe_files(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        load_grid(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="not readable as YAML"):
        load_grid(tmp_path / "bad.yaml")


def test_a_run_depends_on_the_content_of_its_files(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("a")
    document = {"slice": {"lexicon": str(words)}}
    first = digest(document)
    assert digest(document) == first
    assert digest({"slice": {"lexicon": str(words), "top_k": 3}}) != first
    words.write_text("b")
    content_of.cache_clear()
    assert digest(document) != first


def test_the_order_of_steps_is_part_of_a_run():
    from langslice.sweeps.main import _key
    from langslice.sweeps.recipe import SweepRun

    one = {"model": "a", "slice": {}, "sparsify": {}, "evaluate": {}}
    two = {"model": "a", "sparsify": {}, "slice": {}, "evaluate": {}}
    assert _key(SweepRun(one, {})) != _key(SweepRun(two, {}))


def test_a_sweep_ends_in_a_table_and_plots(tiny, tmp_path):
    done = sweep(recipe_of(tiny, slice=[None, {"scripts": "Latn", "max_vocab": [70, 80]}]), tmp_path, processes=2)
    assert not done.failed
    assert done.runs[0].run.name == "slice=none"
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()))
    bits = [row for row in rows if (row["language"], row["metric"]) == ("en", "bits per byte")]
    assert len(bits) == 3
    assert bits[0]["value"] == bits[0]["original"] == bits[1]["original"]
    assert bits[0]["difference"] == ""
    assert float(bits[1]["difference"]) == pytest.approx(float(bits[1]["value"]) - float(bits[1]["original"]))
    assert bits[1]["n"] == "3"
    names = [path.name for path in done.plots]
    assert "perplexity-bits_per_byte-slice.max_vocab.svg" in names
    for path in done.plots:
        assert ET.parse(path).getroot().tag.endswith("svg")
    assert not list(tmp_path.glob("runs/*/work"))
    document = json.loads((tmp_path / "sweep.json").read_text())
    assert len(document["rows"]) == len(rows)
    again = sweep(recipe_of(tiny, slice=[None, {"scripts": "Latn", "max_vocab": [70, 80]}]), tmp_path)
    assert all(run.reused for run in again.runs)


@pytest.mark.robustness
def test_a_killed_sweep_of_twelve_goes_on_without_repeating_one(tiny, tmp_path):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(json.dumps(recipe_of(tiny)))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "langslice", "sweep", str(recipe), "-o", str(out), "--processes", "2"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    limit = time.monotonic() + 300
    while len(results_of(out)) < 5 and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    time.sleep(2.5)  # what was running ends too, when it sees that its parent is gone
    before = results_of(out)
    assert 5 <= len(before) < 13  # one is of the whole model
    time.sleep(0.5)
    assert results_of(out) == before
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    after = results_of(out)
    assert len(after) == 13
    assert {key: after[key] for key in before} == before
    kept = sum(not key.startswith("model-") for key in before)
    assert f"12 runs, {kept} of them kept from before" in second.stdout


def test_a_run_that_fails_is_named_and_the_others_go_on(tiny, tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(
        json.dumps(recipe_of(tiny, slice={"scripts": "Latn", "lexicon": [None, str(tmp_path / "none.txt")]}))
    )
    monkeypatch.setattr(sys, "argv", ["langslice", "sweep", str(recipe), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert "error: 1 of 2 runs failed\n  slice.lexicon=" in captured.err
    assert "1 of them" not in captured.out
    assert len((tmp_path / "out" / "table.csv").read_text(encoding="utf-8").splitlines()) > 1


def test_a_job_takes_no_more_threads_than_torch_would(tmp_path, monkeypatch, one_thread):
    import torch

    monkeypatch.setattr(scheduler, "_attempt", lambda job, work: ({"threads": torch.get_num_threads()}, ""))
    child = os.fork()
    if child == 0:
        scheduler._work({}, str(tmp_path), 64)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert json.loads((tmp_path / RESULT).read_text()) == {"threads": 1}


def test_a_script_that_starts_jobs_without_a_guard_is_told_so(tiny, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import langslice\nlangslice.sweep({small(tiny)!r}, {str(tmp_path / 'out')!r})\n")
    subprocess.run([sys.executable, script], capture_output=True, check=True)
    (error,) = {path.read_text() for path in (tmp_path / "out").rglob("error.txt")}
    assert error.endswith(
        'it could not begin: a Python script that starts jobs must do so below `if __name__ == "__main__":`'
    )


def test_two_sweeps_never_share_a_folder(tiny, tmp_path):
    with locked(tmp_path, "sweep"), pytest.raises(RecipeError, match="another sweep is running in"):
        sweep(small(tiny), tmp_path)


def test_a_dry_run_lists_the_grid(tiny, tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(json.dumps(small(tiny)))
    monkeypatch.setattr(sys, "argv", ["langslice", "sweep", str(recipe), "-o", str(tmp_path / "out"), "--dry-run"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == "slice.max_vocab=70\nslice.max_vocab=80\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.robustness
def test_ray_gives_the_same_table(tiny, tmp_path):
    pytest.importorskip("ray", reason="ray is an extra that is not installed")
    sweep(recipe_of(tiny), tmp_path / "processes", processes=2)
    done = sweep(recipe_of(tiny), tmp_path / "ray", processes=2, ray="local")
    assert not done.failed, done.failed[0].error
    assert (tmp_path / "processes" / "table.csv").read_text() == (tmp_path / "ray" / "table.csv").read_text()


def test_ray_is_asked_for_by_name_where_it_is_missing(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match="`ray` needs the package `ray`"):
        sweep(small(tiny), tmp_path, ray="local")


def test_a_chart_holds_every_point():
    lines = [
        ChartLine("a < b", (ChartPoint(0.3, 1.0, 0.9, 1.1), ChartPoint(0.5, 2.0, 1.8, 2.2))),
        ChartLine("whole", (ChartPoint(0.3, 1.5),), True),
    ]
    root = ET.fromstring(line_chart("t", "sparsity", "score", lines))
    tags = [element.tag.split("}")[1] for element in root]
    assert tags.count("circle") == 2
    assert tags.count("polygon") == 1
    assert tags.count("polyline") == 2
    assert "a < b" in [element.text for element in root]
    flat = line_chart("t", "x", "y", [ChartLine("one", (ChartPoint(1, 0.0),))], x_names=["p", "q"])
    assert ">q</text>" in flat
