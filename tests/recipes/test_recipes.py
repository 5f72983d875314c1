"""Recipes: read by the rules of editors, refused with their place, run step by step, cached by content hash, shown by commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import langslice
from langslice.cli import app as cli
from langslice.errors import LangsliceError, RecipeError
from langslice.healing import HealOptions
from langslice.recipes import parts as parts_module
from langslice.recipes.content import digest, remembering
from langslice.recipes.main import preview
from langslice.recipes.schema import recipe_schema
from langslice.recipes.validation import load_recipe
from tests.zoo import add_tokenizer, build

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, and text for it."""
    root = tmp_path_factory.mktemp("recipe")
    add_tokenizer(build("llama", root / "model"))
    (root / "data" / "parallel").mkdir(parents=True)
    (root / "data" / "parallel" / "en.txt").write_text(
        "the sand and the moon\nlast summer in the land\nsend a letter\n"
    )
    (root / "text.txt").write_text("the sand and the moon\n" * 20)
    (root / "pairs.tsv").write_text("the sand\tthe moon\n" * 40)
    return root


def recipe_of(tiny, **changes):
    return {
        "model": str(tiny / "model"),
        "slice": {"scripts": "Latn", "drop_layers": 1},
        "evaluate": {"languages": "en", "data": str(tiny / "data"), "device": "cpu", "resamples": 100},
        **changes,
    }


def run(capsys, monkeypatch, *arguments):
    """Exit code, stdout and stderr of one command."""
    monkeypatch.setattr(sys, "argv", ["langslice", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def kept(done):
    return {step.name: step.kept for step in done.steps}


def weights_and_tokenizer(folder):
    names = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


# What is read

# ruff: noqa: E501 - a recipe and the message about it are on one line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: mini\nslice:\n  langauges: ko\n", "r.yaml:3, slice: unknown entry `langauges`\nhint: did you mean `languages`?"),
        ("model: mini\nslcie: {}\n", "r.yaml:2: unknown entry `slcie`\nhint: did you mean `slice`?"),
        ("model: mini\nslice:\n  languages: ko\n  coverage: high\n", "r.yaml:4, slice: `coverage` must be a number from 0 to 1, found 'high'"),
        ("model: mini\nslice: {coverage: 1.5}\n", "r.yaml:2, slice: `coverage` must be a number from 0 to 1, found 1.5"),
        ("model: mini\nslice: {coverage: .nan}\n", "`coverage` must be a number from 0 to 1, found nan"),
        ("model: mini\nslice: {max_vocab: [1, 2]}\n", "hint: a list spans an axis: `langslice sweep` runs a recipe with lists"),
        ("model: mini\nslice: {max_vocab: true}\n", "`max_vocab` must be a whole number at least 1, found True"),
        ("model: mini\nslice: {corpus: [[a], b]}\n", "`corpus` must be a list of text, found ['a'] in it"),
        ("model: mini\nslice: {revision: 3}\n", "unknown entry `revision`\nhint: it is next to `model`, for all parts"),
        ("model: mini\nslice: {cache_dir: x}\n", "hint: a recipe holds no places of one machine: set HF_HUB_CACHE"),
        ("model: mini\nslice: {token: abc}\n", "hint: a recipe holds no secrets: set HF_TOKEN"),
        ("model: mini\nrevision: 3\nslice: {}\n", 'r.yaml:2: `revision` must be text, found 3\nhint: as text it is in quotes: revision: "3"'),
        ("model: mini\nslice: {sparsity: 0.3, weights_by: wander}\n", "`weights_by` must be one of wanda, mwanda, magnitude, random, top, sparsegpt, found 'wander'\nhint: did you mean `wanda`?"),
        ("model: mini\nslice: ko\n", "r.yaml:2: `slice` must be a mapping, found str"),
        ("model: mini\nslice: {}\nslice: {}\n", "r.yaml:3: `slice` is there twice\nhint: it is also in line 2"),
        ("model: mini\nscore: {kind: heads}\n", "r.yaml:2, score: `kind` must be a mapping, found 'heads'"),
        ("model: mini\nscore: {a: {method: l2}}\n", "r.yaml:2, score.a: `kind` is missing"),
        ("model: mini\nscore: {2: {kind: heads}}\n", "`2` is no name"),
        ("model: mini\nslice: {heads_by: $heads}\n", "r.yaml:2, slice: nothing is called `$heads`\nhint: there is $model"),
        ("model: mini\nscore: {heads: {kind: heads, method: l2}}\nslice: {heads_by: $head}\n", "hint: did you mean `$heads`?"),
        ("model: mini\ncount: {a: {corpus: x}}\nscore: {a: {kind: heads, method: l2}}\nslice: {}\n", "two inputs are called `a`"),
        ("model: mini\n", "r.yaml: nothing to do"),
        ("slice: {languages: ko}\n", "r.yaml: `model` is missing"),
        ("model: mini\nplan: {languages: ko}\nreport: true\n", "`plan` stands for a plan without a slice"),
        ("model: mini\nevaluate: {languages: ko}\nverify: {text: x}\n", "r.yaml:3: `verify` has no effect without `slice`"),
        ("model: mini\nevaluate: {languages: ko}\nreport: true\n", "a report is of a slice, and there is no `slice`"),
        ("model: mini\nslice: {languages: ko}\nrestore: true\n", "`restore` needs `slice` and `heal`"),
        ("model: mini\nslice: {languages: ko}\nreport: {colour: red}\n", "unknown entry `colour`\nhint: entries are none"),
        ("model: mini\nslice: {languages: ko}\nevaluate: {languages: ko, beside: x}\n", "`beside` stands for what the recipe would make"),
        ("model: mini\nslice: {languages: kokoko}\n", "r.yaml:2, slice: "),
        ("model: mini\nslice: {languages: ko, dtype: bfloat16}\n", "r.yaml:2, slice: `dtype` has no effect"),
        ("model: mini\nslice: {plan: p.json, languages: ko}\n", "`languages` cannot be given together with it"),
        ("model: mini\nevaluate: {languages: ko, dtype: int8}\n", "r.yaml:2, evaluate: `dtype` must be one of float32, bfloat16, float16, found 'int8'"),
        ("- model\n", "r.yaml: expected a mapping, found list"),
        ("", "r.yaml: expected a mapping, found NoneType"),
        ("a: [", "r.yaml: not readable as YAML"),
        ("&a {model: *a}\n", "once its aliases are unfolded"),
        ("model: !!python/object:os.system x\n", "r.yaml: not readable as YAML"),
        ("model: " + "1" * 5000, "r.yaml: not readable as YAML"),
        ("model: mini\nslice: \x00\n", "r.yaml: not readable as YAML"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_place(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text)
    with pytest.raises(LangsliceError) as caught:
        langslice.run("r.yaml", "work")
    assert message in str(caught.value)
    assert not Path("work").exists()


def test_yaml_is_read_as_editors_read_it(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: mini\nslice: {languages: no, drop_heads: 3:0, epsilon: 1e-6, sparsity: .5, pattern: 2:4, weights_by: magnitude,"
        " layers: 2001-12-14, drop_layers: ['0', 1], max_vocab: 010}\n"
    )
    assert load_recipe(tmp_path / "r.yaml").document["slice"] == {
        "languages": "no", "drop_heads": "3:0", "epsilon": 1e-6, "sparsity": 0.5, "pattern": "2:4", "weights_by": "magnitude",
        "layers": "2001-12-14", "drop_layers": ["0", 1], "max_vocab": 10,
    }  # fmt: skip


def test_null_and_false_leave_out(tmp_path):
    text = "model: mini\nslice: {languages: ko, coverage: null}\nverify: false\nreport: false\nrestore: null\n"
    (tmp_path / "r.yaml").write_text(text)
    assert load_recipe(tmp_path / "r.yaml").document == {"model": "mini", "slice": {"languages": "ko"}, "verify": False}


def test_the_schema_says_what_the_check_says():
    jsonschema = pytest.importorskip("jsonschema", reason="a development dependency that is not installed")
    for sweep in (False, True):
        schema = recipe_schema(sweep=sweep)
        jsonschema.Draft202012Validator.check_schema(schema)
    checked = jsonschema.Draft202012Validator(recipe_schema())
    for document, right in (
        (
            {"model": "mini", "slice": {"languages": ["ko", "en"], "coverage": 0.9, "drop_layers": 3}, "report": True},
            True,
        ),
        ({"model": "mini", "slice": {"coverage": 2}}, False),
        ({"model": "mini", "slice": {"langauges": "ko"}}, False),
        ({"model": "mini", "slice": {"coverage": [0.9, 0.99]}}, False),
        ({"model": "mini", "score": {"heads": {"kind": "heads", "method": "l2"}}}, True),
        ({"model": "mini", "score": {"heads": {"kind": 3, "method": "l2"}}}, False),
        ({"model": "mini", "slice": {"weights_by": "wander"}}, False),
    ):
        assert checked.is_valid(document) == right, document
        if right:
            load_recipe(document)
        else:
            with pytest.raises(RecipeError):
                load_recipe(document)
    lists = jsonschema.Draft202012Validator(recipe_schema(sweep=True))
    grid = {"model": ["a", "b"], "slice": [None, {"corpus": [["x", "y"], "z"]}], "evaluate": {"limit": [1, 2]}}
    assert lists.is_valid(grid)
    assert lists.is_valid(yaml.safe_load((EXAMPLES / "sweep.yaml").read_text(encoding="utf-8")))
    assert not lists.is_valid({**grid, "evaluate": {"limit": [1, "x"]}})


def test_a_digest_sees_every_file_that_a_text_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    for name in ("a.txt", "b.txt", "c.parquet", "more/d.txt"):
        (tmp_path / name).write_text("1")
    for text, name in (
        ("a.txt", "a.txt"), ("ko=a.txt", "a.txt"), ("b.txt,a.txt", "a.txt"), ("c.parquet:4", "c.parquet"), ("c.parquet=0.5", "c.parquet"),
        ("*.txt", "b.txt"), ("more", "more/d.txt"), ("ko=more", "more/d.txt"), (str(tmp_path / "more" / "*.txt"), "more/d.txt"),
    ):  # fmt: skip
        before = digest({"part": [text]}, read=remembering(None))
        assert digest({"part": [text]}, read=remembering(None)) == before
        (tmp_path / name).write_text((tmp_path / name).read_text() + "2")
        assert digest({"part": [text]}, read=remembering(None)) != before, text


# What is done


def test_a_run_keeps_what_is_unchanged_and_does_the_rest_again(tiny, tmp_path):
    first = langslice.run(recipe_of(tiny), tmp_path / "work")
    names = ["measure", "plan", "slice", "evaluate"]
    assert [step.name for step in first.steps] == names
    assert first.model == tmp_path / "work" / "slice"
    assert json.loads((first.model / "slice.json").read_text())["proof"]["passed"] is True
    found = json.loads(first.results[0].read_text())
    assert found["format"] == "langslice-evaluation/1"
    assert set(found["models"]) == {"original", "slice"}
    again = langslice.run(recipe_of(tiny), tmp_path / "work")
    assert kept(again) == dict.fromkeys(names, True)
    assert [step.seconds for step in again.steps] == [step.seconds for step in first.steps]
    # Comparing is part of the evaluation, and not of what is measured of the original.
    compared = recipe_of(tiny, evaluate={**recipe_of(tiny)["evaluate"], "resamples": 200})
    assert kept(preview(compared, tmp_path / "work")) == {**dict.fromkeys(names, True), "evaluate": False}
    cut = recipe_of(tiny, slice={"scripts": "Latn", "drop_layers": 2})
    assert kept(langslice.run(cut, tmp_path / "work")) == {
        "measure": True,
        "plan": False,
        "slice": False,
        "evaluate": False,
    }
    (first.model / "config.json").write_text("{}")
    assert kept(langslice.run(cut, tmp_path / "work")) == {**dict.fromkeys(names, True), "slice": False}
    assert json.loads((first.model / "config.json").read_text())["model_type"] == "llama"
    (tmp_path / "work" / "plan.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"plan\.json was edited since it was made\nhint: to use it, move it out of"):
        langslice.run(cut, tmp_path / "work")
    (tmp_path / "work" / "plan.json").unlink()
    alone = langslice.run({"model": cut["model"], "slice": cut["slice"]}, tmp_path / "work")
    assert [path.name for path in alone.left] == ["evaluation.json", "original.json"]


def test_a_run_depends_on_the_content_of_its_files_and_of_its_model(tiny, tmp_path):
    shutil.copytree(tiny / "model", tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("the sand\n")
    recipe = {"model": str(tmp_path / "model"), "slice": {"corpus": str(text)}}
    langslice.run(recipe, tmp_path / "work")
    os.utime(text)
    assert all(kept(langslice.run(recipe, tmp_path / "work")).values())
    text.write_text("the moon\n")
    assert kept(langslice.run(recipe, tmp_path / "work")) == {"plan": False, "slice": False}
    (tmp_path / "work2").mkdir()
    shutil.move(tmp_path / "model", tmp_path / "work2" / "model")
    moved = {**recipe, "model": str(tmp_path / "work2" / "model")}
    from safetensors.numpy import load_file, save_file

    weights = tmp_path / "work2" / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, weights, metadata={"format": "pt"})
    assert kept(langslice.run(moved, tmp_path / "work")) == {"plan": False, "slice": False}


@pytest.mark.robustness
def test_a_killed_run_goes_on(tiny, tmp_path):
    recipe = recipe_of(tiny, score={"heads": {"kind": "heads", "method": "l2"}})
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    code = (
        "import os, signal, sys\n"
        "from langslice.slicing import main as job\n"
        "job.write_shards = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['langslice', 'run', 'r.yaml', '-o', 'work']\n"
        "from langslice.cli.app import main\n"
        "main()\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "work" / "slice").exists()
    before = (tmp_path / "work" / "plan.json").stat().st_mtime_ns
    done = langslice.run(recipe, tmp_path / "work")
    assert kept(done) == {"score heads": True, "measure": True, "plan": True, "slice": False, "evaluate": False}
    assert (tmp_path / "work" / "plan.json").stat().st_mtime_ns == before
    assert not [path for path in (tmp_path / "work").iterdir() if "partial" in path.name]


def test_a_failing_step_names_its_place_and_leaves_the_ones_before(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(json.dumps(recipe_of(tiny, slice={"lexicon": "none.txt"}), indent=1))
    with pytest.raises(LangsliceError, match=r"^r\.yaml:3, slice: .*none\.txt"):
        langslice.run("r.yaml", "work")
    Path("none.txt").write_text("sand\n")
    assert kept(langslice.run("r.yaml", "work")) == {"measure": True, "plan": False, "slice": False, "evaluate": False}


def test_only_a_folder_of_runs_is_written_into(tiny, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RecipeError, match=r"holds other files, such as mine\.txt, and is not the work folder of a run"):
        langslice.run(recipe_of(tiny), tmp_path)
    with pytest.raises(RecipeError, match="is not a folder"):
        langslice.run(recipe_of(tiny), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_inputs_are_made_first_and_stand_for_their_names(tiny, tmp_path):
    recipe = recipe_of(
        tiny,
        count={"web": {"corpus": str(tiny / "text.txt")}},
        demonstrations={"mt": {"parallel": str(tiny / "pairs.tsv"), "languages": "fr,en", "shots": 1, "count": 4}},
        score={"heads": {"kind": "heads", "method": "l2"}},
        slice={"counts": "$web=0.5", "heads_by": "$heads", "heads_sparsity": 0.5, "uniform": True},
        sparsify={"sparsity": 0.5, "keep_demos": "$mt"},
        features={"demos": "mt=$mt", "pictures": False},
    )
    done = langslice.run(recipe, tmp_path / "work")
    assert [step.name for step in done.steps] == [
        "count web", "score heads", "demonstrations mt", "features", "measure", "plan", "slice", "sparsify", "evaluate",
    ]  # fmt: skip
    assert done.model == tmp_path / "work" / "sparsified"
    assert (tmp_path / "work" / "features" / "magnitudes.parquet").is_file()
    report = json.loads((tmp_path / "work" / "plan.json").read_text())["request"]
    assert report["counts"] == f"{tmp_path / 'work' / 'count' / 'web.parquet'}=0.5"
    changed = {**recipe, "demonstrations": {"mt": {**recipe["demonstrations"]["mt"], "count": 5}}}
    assert [name for name, same in kept(preview(changed, tmp_path / "work")).items() if not same] == [
        "demonstrations mt", "features", "sparsify", "evaluate",
    ]  # fmt: skip


@pytest.fixture
def rooms(monkeypatch):
    """Stand-ins for the rooms that heal, restore and report, which note what they were asked for."""
    calls = []

    def heal(model, out, settings, *, overwrite=False, report=lambda *_: None):
        calls.append(("heal", Path(model).name, settings))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(model, out)
        report("training", 1, 2)

    def restore(healed, out, *, base, overwrite=False, report=lambda *_: None):
        calls.append(("restore", Path(healed).name, Path(base)))
        shutil.copytree(base, out, dirs_exist_ok=overwrite)

    def write_report(folder, out=None, *, results=(), scores=(), features=(), recipe=None, command=None):
        calls.append(("report", Path(folder).name, [path.name for path in results], recipe, command))
        (Path(folder) / "README.md").write_text("card")
        Path(out).write_text("<html>")
        return out

    for name, function in (
        ("healing.main.heal", heal), ("restoration.main.restore", restore), ("reporting.write_report", write_report),
    ):  # fmt: skip
        monkeypatch.setattr(f"langslice.{name}", function)
    return calls


def test_the_whole_job(tiny, tmp_path, rooms, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(tiny, heal={"corpus": str(tiny / "text.txt"), "teacher": "$model"}, restore=True, report=True)
    Path("r.yaml").write_text(json.dumps(recipe))
    done = langslice.run("r.yaml", "work")
    names = ["measure", "plan", "slice", "evaluate", "heal", "evaluate healed", "restore", "report"]
    assert [step.name for step in done.steps] == names
    settings = HealOptions(corpus=(str(tiny / "text.txt"),), teacher=str(tiny / "model"))
    assert rooms == [
        ("heal", "slice", settings),
        ("restore", "healed", tiny / "model"),
        ("report", "healed", ["evaluation.json", "evaluation-healed.json"], Path("r.yaml").read_text(), "langslice run r.yaml -o work"),
    ]  # fmt: skip
    assert done.report == Path("work/report.html")
    assert done.model == Path("work/restored")
    assert all(kept(langslice.run("r.yaml", "work")).values())
    with pytest.raises(LangsliceError, match=r"^r\.yaml:3, heal: `steps` must be a whole number at least 1, found 0"):
        Path("r.yaml").write_text(f"model: {tiny / 'model'}\nslice: {{scripts: Latn}}\nheal: {{steps: 0}}\n")
        langslice.run("r.yaml", "other")
    changed = {**recipe, "heal": {**recipe["heal"], "steps": 2}}
    assert [name for name, same in kept(preview(changed, "work")).items() if same] == names[:4]


def test_what_an_installation_lacks_is_named(tiny, tmp_path, monkeypatch):
    for name in ("langslice.healing", "langslice.reporting"):
        monkeypatch.setitem(sys.modules, name, None)
    parts_module.parts.cache_clear()
    try:
        with pytest.raises(RecipeError, match="unknown entry `heal`\nhint: this version of langslice does not heal"):
            langslice.run(recipe_of(tiny, heal={}), tmp_path / "work")
        with pytest.raises(RecipeError, match="report: this version of langslice does not write reports"):
            langslice.run(recipe_of(tiny, report=True), tmp_path / "work")
    finally:
        parts_module.parts.cache_clear()


# What commands show


def shown(capsys, monkeypatch, folder, *arguments):
    """Write what a command shows as its recipe, and run it."""
    code, out, _ = run(capsys, monkeypatch, *arguments, "--show-recipe")
    assert code == 0, out
    (folder / "shown.yaml").write_text(out, encoding="utf-8")
    return langslice.run(folder / "shown.yaml", folder / "work")


@pytest.mark.parametrize(
    "options",
    [
        ["--languages", "ko,en", "--pad-to-multiple-of", "64", "--drop-layers", "3", "--carry", "*.md"],
        ["--corpus", EXAMPLES / "text" / "ko.txt", "--coverage", "0.99", "--heads-sparsity", "0.25", "--uniform", "--no-verify",
         "--sparsity", "0.3", "--weights-by", "magnitude", "--linears", "*.mlp.*"],
    ],
)  # fmt: skip
def test_the_recipe_of_slice_gives_the_same_bytes(options, tmp_path, capsys, monkeypatch):
    arguments = ["slice", "mini", "-o", tmp_path / "out", *options, "-q"]
    assert run(capsys, monkeypatch, *arguments)[0] == 0
    done = shown(capsys, monkeypatch, tmp_path, *arguments)
    made = weights_and_tokenizer(tmp_path / "out")
    assert set(made) == {"model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"}
    assert weights_and_tokenizer(done.model) == made


def test_recipes_of_the_other_commands_give_the_same(tiny, tmp_path, capsys, monkeypatch):
    model = tiny / "model"

    def both(name, *arguments):
        folder = tmp_path / name
        folder.mkdir()
        assert run(capsys, monkeypatch, *arguments, "-q")[0] == 0
        return shown(capsys, monkeypatch, folder, *arguments)

    done = both("plan", "plan", model, "--scripts", "Latn", "-o", tmp_path / "p.json")
    assert done.steps[0].path.read_bytes() == (tmp_path / "p.json").read_bytes()
    done = both(
        "from-plan", "slice", model, "--plan", tmp_path / "p.json", "-o", tmp_path / "s", "--text", tiny / "text.txt"
    )
    assert weights_and_tokenizer(done.model) == weights_and_tokenizer(tmp_path / "s")
    assert "text.txt" in (done.model / "slice.json").read_text()
    done = both("mask", "mask", model, "--drop-heads", "0:0", "-o", tmp_path / "m")
    assert weights_and_tokenizer(done.model) == weights_and_tokenizer(tmp_path / "m")
    done = both("count", "count", model, "-c", tiny / "text.txt", "-o", tmp_path / "web.parquet")
    assert done.steps[0].path.read_bytes() == (tmp_path / "web.parquet").read_bytes()
    done = both("score", "score", model, "heads", "-m", "l2", "-o", tmp_path / "l2.parquet")
    assert done.steps[0].path.read_bytes() == (tmp_path / "l2.parquet").read_bytes()
    done = both(
        "demos", "demonstrations", "--parallel", tiny / "pairs.tsv", "-l", "fr,en", "--separator", "\\n", "--count", "3",
        "-o", tmp_path / "fr-en.jsonl",
    )  # fmt: skip
    assert done.steps[0].path == tmp_path / "demos" / "work" / "demonstrations" / "fr-en.jsonl"
    assert done.steps[0].path.read_bytes() == (tmp_path / "fr-en.jsonl").read_bytes()
    done = both(
        "features",
        "features",
        model,
        "--demos",
        f"mt={tmp_path / 'fr-en.jsonl'}",
        "--no-pictures",
        "-o",
        tmp_path / "f",
    )
    assert {path.name for path in done.steps[0].path.iterdir()} == {path.name for path in (tmp_path / "f").iterdir()}
    for path in (tmp_path / "f").iterdir():
        assert path.read_bytes() == (done.steps[0].path / path.name).read_bytes()
    done = both(
        "evaluate", "evaluate", model, tmp_path / "s", "-l", "en", "--data", tiny / "data", "--device", "cpu", "--limit", "2",
        "-o", tmp_path / "e.json",
    )  # fmt: skip
    assert json.loads(done.results[0].read_text()) == json.loads((tmp_path / "e.json").read_text())


def test_a_sweep_shows_the_recipe_of_each_run(tiny, tmp_path, capsys, monkeypatch):
    (tmp_path / "sweep.yaml").write_text(json.dumps(recipe_of(tiny, slice={"scripts": "Latn", "max_vocab": [70, 80]})))
    code, out, _ = run(capsys, monkeypatch, "sweep", tmp_path / "sweep.yaml", "-o", tmp_path / "out", "--show-recipe")
    assert code == 0
    found = list(yaml.safe_load_all(out))
    assert [recipe["slice"]["max_vocab"] for recipe in found] == [70, 80]
    assert "# slice.max_vocab=80\n" in out
    load_recipe(found[1])
    for more, message in (
        ({"report": True}, "r.yaml:1: `report` has no meaning in a sweep"),
        ({"evaluate": {"languages": "en", "beside": "x"}}, "r.yaml:1, evaluate: `beside` has no meaning in a sweep"),
    ):
        (tmp_path / "r.yaml").write_text(json.dumps({**recipe_of(tiny), **more}))
        code, _, err = run(capsys, monkeypatch, "sweep", tmp_path / "r.yaml", "-o", tmp_path / "out")
        assert code == 2
        assert message in err


def test_a_sweep_makes_inputs_and_pins_a_revision(tiny, tmp_path):
    from langslice.sweeps.job import perform

    score = {"heads": {"kind": "heads", "method": "l2"}}
    job = recipe_of(tiny, score=score, slice={"heads_by": "$heads", "heads_sparsity": 0.5, "uniform": True})
    original = perform({"model": job["model"], "evaluate": job["evaluate"]}, tmp_path / "original")
    found = perform({**job, "original": original}, tmp_path / "cut")
    assert found["models"]["slice"]["parameters"] < found["models"]["original"]["parameters"]


def test_the_run_command(tiny, tmp_path, capsys, monkeypatch):
    (tmp_path / "r.yaml").write_text(json.dumps(recipe_of(tiny)))
    arguments = ("run", tmp_path / "r.yaml", "-o", tmp_path / "work")
    code, out, _ = run(capsys, monkeypatch, *arguments, "--dry-run")
    assert code == 0
    assert re.findall(r"^ ?(\w+) +to do", out, re.M) == ["measure", "plan", "slice", "evaluate"]
    assert not (tmp_path / "work").exists()
    code, out, _ = run(capsys, monkeypatch, *arguments)
    assert code == 0
    assert re.findall(r"^ ?(\w+) +done", out, re.M) == ["measure", "plan", "slice", "evaluate"]
    assert (
        f"verification of {tmp_path / 'work' / 'slice'}: equal in files, tensors, bytes, tokenizer, ids, tokenisation, clients, "
        "loading, outputs\n" in out
    )
    assert "bits per byte" in out
    code, out, _ = run(capsys, monkeypatch, "run", "--schema")
    assert json.loads(out) == recipe_schema()
    code, _, err = run(capsys, monkeypatch, "run", tmp_path / "none.yaml", "-o", tmp_path / "work")
    assert code == 2
    assert "none.yaml: no such recipe\nhint: `langslice init MODEL" in err


# What init writes


def uncommented(text):
    """A draft with everything that it offers."""
    return re.sub(
        r"^( *)# (?=\S)(?!langslice |For |yaml-)", r"\1", re.sub(r"^( *)# (?= )", r"\1", text, flags=re.M), flags=re.M
    )


def test_a_draft_runs_as_it_is_written(zoo, tmp_path, capsys, monkeypatch):
    path = tmp_path / "recipe.yaml"
    code, out, err = run(capsys, monkeypatch, "init", zoo("llama"), "-l", "en", "-o", path)
    assert (code, out) == (0, "")
    assert f"Next: langslice run {path} -o WORK" in err
    done = langslice.run(path, tmp_path / "work")
    assert [step.name for step in done.steps] == ["measure", "plan", "slice", "evaluate"]
    code, _, err = run(capsys, monkeypatch, "init", zoo("llama"), "-l", "en", "-o", path)
    assert code == 2
    assert "exists already" in err


def test_what_a_draft_offers_works(rooms, tmp_path, monkeypatch):
    from langslice.recipes.draft import draft

    monkeypatch.chdir(EXAMPLES / "text")
    text = draft("mini", "ko,en")
    assert "# yaml-language-server: $schema=recipe.schema.json\n" in text
    assert "LlamaForCausalLM, 5.02 M parameters" in text
    assert "25% of the 24 groups of 2 heads is 4.4% of the parameters" in text
    full = yaml.safe_load(uncommented(text))
    assert set(full) == {"model", "slice", "evaluate", "heal", "restore", "report"}
    assert set(full["slice"]) == {
        "languages", "corpus", "coverage", "drop_layers_by", "heads_sparsity", "uniform", "neurons_sparsity", "calibration",
        "sparsity", "weights_by",
    }  # fmt: skip
    assert full["heal"] == {"corpus": ["ko.txt", "en.txt"], "objective": "causal", "steps": 1000, "teacher": "$model"}
    done = langslice.run(full, tmp_path / "work")
    assert [step.name for step in done.steps][-4:] == ["heal", "evaluate healed", "restore", "report"]
    jsonschema = pytest.importorskip("jsonschema", reason="a development dependency that is not installed")
    jsonschema.validate(full, recipe_schema())
    jsonschema.validate(yaml.safe_load(text), recipe_schema())


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("bert", ["tasks: bitext", "objective: masked", "trust_remote_code"]),
        (
            "m2m_100",
            [
                "tasks: translation",
                "it cannot be trained: `m2m_100` models read a language token with every text",
                "drop_layers_by: encoder.block-influence:1",
            ],
        ),
        ("t5", ["tasks: translation", "objective: denoising", "restore: true"]),
        ("olmo2", ["Heads cannot be sliced: no head of this model can be removed", "tasks: perplexity"]),
    ],
)
def test_a_draft_is_of_its_model(zoo, model_type, words):
    from langslice.recipes.draft import draft

    text = draft(str(zoo(model_type)), "en,fr")
    for word in words:
        assert word in re.sub(r"\n *## ", " ", text)
    load_recipe(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("model_type", "purpose", "message"),
    [
        ("llama", "search", "`purpose`.* search: this is a causal language model, and that needs an encoder without a head that classifies"),
        ("bert", "reranker", "this is an encoder without a head that classifies, and that needs an encoder with"),
        ("t5", "speech", "this is an encoder and a decoder of text, and that needs an encoder of sound and a decoder of text"),
        ("llama", "serach", "`purpose` must be one of search, reranker, llm, translation, speech, found 'serach'"),
        (None, None, "no model was given"),
    ],
)  # fmt: skip
def test_a_draft_is_for_what_its_model_can_do(zoo, model_type, purpose, message):
    from langslice.recipes.draft import draft

    with pytest.raises(LangsliceError, match=message):
        draft(None if model_type is None else str(zoo(model_type)), "en", purpose=purpose)


def test_every_purpose_proposes_a_model_and_every_ready_recipe_is_understood(monkeypatch):
    from langslice.recipes.draft import draft
    from langslice.recipes.purposes import PURPOSES, catalogue, proposed

    assert {known.purpose for known in catalogue()} == set(PURPOSES)
    assert len({known.name for known in catalogue()}) == len(catalogue())
    folder = EXAMPLES.parent / "recipes"
    for known in catalogue():
        text = (folder / f"{known.name}.yaml").read_text(encoding="utf-8")
        assert load_recipe(yaml.safe_load(text)).document["model"] == known.model
        load_recipe(yaml.safe_load(uncommented(text)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LangsliceError, match=proposed("translation")):
        draft(None, "ko,en", purpose="translation")


def test_a_draft_needs_a_word_list_and_a_language_that_there_is(zoo):
    from langslice.recipes.draft import draft

    with pytest.raises(LangsliceError, match="no lexicon for Swahili"):
        draft(str(zoo("llama")), "sw")
    with pytest.raises(LangsliceError, match="kokoko"):
        draft(str(zoo("llama")), "kokoko")


# What the documentation shows


@pytest.mark.parametrize("name", ["languages", "structure", "weights"])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parents[1])
    done = langslice.run(f"docs/examples/{name}.yaml", tmp_path / "work")
    assert done.model is not None
    assert len(done.results) == 1


def test_the_example_of_the_whole_job(tmp_path, monkeypatch):
    """Everything for real: cut, verified, measured, healed, measured again, restored, reported."""
    monkeypatch.chdir(EXAMPLES.parents[1])
    done = langslice.run(EXAMPLES / "whole-job.yaml", tmp_path / "work")
    assert [step.name for step in done.steps] == [
        "measure", "plan", "slice", "evaluate", "heal", "evaluate healed", "restore", "report",
    ]  # fmt: skip
    assert done.model == tmp_path / "work/restored"
    assert json.loads((tmp_path / "work/restored/restore.json").read_text())["proof"]["passed"]
    assert json.loads((tmp_path / "work/healed/slice.json").read_text())["healed"]["steps"] == 20
    page = (tmp_path / "work/report.html").read_text(encoding="utf-8")
    assert "Healing" in page and "evaluation-healed.json" in page
    assert langslice.verify("mini", tmp_path / "work/healed").passed
    again = langslice.run(EXAMPLES / "whole-job.yaml", tmp_path / "work")
    assert all(step.kept for step in again.steps)


def test_the_example_of_a_sweep_is_a_grid():
    from langslice.sweeps.recipe import expand, load_grid

    assert len(expand(load_grid(EXAMPLES / "sweep.yaml"))) == 6
