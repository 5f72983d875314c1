"""Pages of the benchmarks on trained models say what the JSON beside them holds, and nothing that was not measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks/real"
PAGES = sorted((ROOT / "benchmarks/results/real").glob("*.md"))


@pytest.fixture
def script(monkeypatch):
    """Load a script of benchmarks/real by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name):
        spec = importlib.util.spec_from_file_location(f"real_{name}", SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_was_measured(script, path):
    document = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert script(path.stem).page(document).rstrip("\n") + "\n" == path.read_text(encoding="utf-8")


def test_make_bench_real_runs_every_script(script):
    scripts = {path.stem for path in SCRIPTS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    names = scripts - {"run_all"}
    assert set(script("run_all").NAMES) == names


def test_the_default_scores_are_those_that_were_best(script):
    """On one of the models at least, each does better than what could stand in its place."""
    from langslice.scoring.methods import DEFAULTS

    scores = script("scores")
    found = scores.of_models(json.loads((ROOT / "benchmarks/results/real/scores.json").read_text(encoding="utf-8")))

    def ranked(model, method):
        return scores.correlation(model["removals"]["heads"], model[f"heads {method}"]["scores"], resamples=2)[0]

    def kept(model, method):  # the smaller the rise of the loss, the better
        lines = (model["groups"] or {}).get(f"neurons {method}")
        return -sum(map(scores.total, lines["anywhere"].values())) if lines else None

    for best, other, worth in (
        (DEFAULTS["heads"][0], "lahis", ranked),
        (DEFAULTS["heads"][1], "l2", ranked),
        (DEFAULTS["neurons"][0], "activation", kept),
    ):
        pairs = [(worth(model, best), worth(model, other)) for model in found.values()]
        assert any(one > two for one, two in pairs if one is not None and two is not None), (best, other)


def test_a_step_is_made_once_and_kept(script, tmp_path, monkeypatch):
    common = script("common")
    monkeypatch.setattr(common, "WORK", tmp_path)
    made = []
    for _ in range(2):
        assert common.step("page", "name", lambda: made.append(1) or {"a": 1}) == {"a": 1}
    assert made == [1]
    with pytest.raises(RuntimeError, match="exit code 2"):
        common.langslice("slice", tmp_path / "absent", "-l", "ko", "-o", tmp_path / "out")


def test_second_halves_are_of_other_lines_and_the_right_one_is_in_every_place(script, monkeypatch):
    common = script("common")
    lines = [f"one{at} two three four five six{' seven' * (at % 5)} {at}" for at in range(64)] + ["too short to ask"]
    monkeypatch.setattr(common, "ntrex", lambda language: lines)
    asked = common.second_halves("en", range(len(lines)), 32)
    assert {one.prompt + one.candidates[one.answer] for one in asked} <= set(lines)
    assert all(len(set(one.candidates)) == common.CHOSEN_FROM for one in asked)
    wrong = {one.prompt + text for one in asked for at, text in enumerate(one.candidates) if at != one.answer}
    assert not wrong & set(lines)
    assert [sum(one.answer == place for one in asked) for place in range(4)] == [8, 8, 8, 8]


def test_steering_is_chosen_on_other_lines_than_those_reported(script, monkeypatch):
    steering = script("steering")
    monkeypatch.setattr(steering, "ntrex", lambda language: [f"line {at} of {language}" for at in range(1997)])
    parts = [set(steering.prompts("dev")), set(steering.prompts("test"))]
    assert [len(part) for part in parts] == [steering.PROMPTS["dev"], steering.PROMPTS["test"]]
    assert not parts[0] & parts[1]
