"""The front of the package: every verb is a function, its parameters are there to be seen, and objects go in and come out."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import langslice
from langslice.cli import app as cli
from langslice.errors import CheckpointError, OptionError, PlanError
from langslice.mini import mini_model_path
from langslice.progress import silent

STUB = Path(langslice.__file__).with_name("__init__.pyi")
# Their rooms are called like these commands.
OTHER_NAMES = {"demonstrations": "make_demonstrations", "features": "find_features", "studio": "open_studio"}


def test_every_command_is_a_function():
    names = [command.callback.__name__ for command in cli.app.registered_commands]
    for name in names:
        front = OTHER_NAMES.get(name, name)
        assert front in langslice.__all__ and front in dir(langslice), name
        assert callable(getattr(langslice, front)), name
    with pytest.raises(AttributeError, match="no attribute 'slize'"):
        langslice.slize  # noqa: B018


def test_the_reference_lists_what_all_says_of_langslice_and_of_each_room():
    root = Path(langslice.__file__).parent
    page = (root.parent / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    listed = {}
    for section in page.split("\n## ")[1:]:
        package, _, text = section.partition("\n")
        listed[package] = re.findall(r"^### (\w+)", text, re.M)
    rooms = [f"langslice.{path.parent.name}" for path in root.glob("*/__init__.py")]
    said = {package: list(importlib.import_module(package).__all__) for package in ("langslice", *rooms)}
    assert listed == {package: names for package, names in said.items() if names}
    for package, names in said.items():
        for name in names:
            assert getattr(importlib.import_module(package), name) is not None, f"{package}.{name}"


def test_signatures_list_the_parameters_and_the_stub_says_the_same():
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, [each.arg for each in (*node.args.args, *node.args.kwonlyargs)])
    functions = {name for name in langslice.__all__ if inspect.isfunction(getattr(langslice, name))}
    assert set(found) == functions
    for name in functions:
        parameters = inspect.signature(getattr(langslice, name)).parameters
        assert list(parameters) == found[name], name
        assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()), name
    assert {"languages", "coverage", "drop_layers", "sparsity", "verify", "threads"} <= set(found["slice"])


def test_importing_is_light():
    code = (
        "import sys; import langslice\n"
        "rooms = [name for name in sys.modules if name.startswith('langslice.') and name.count('.') > 1]\n"
        "sys.exit(f'{len(sys.modules)} {rooms}' if len(sys.modules) > 100 or rooms else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("front") / "ko-en"
    return langslice.slice("mini", out, languages=["ko", "en"], verify=False)


def test_a_result_and_a_plan_are_short_in_an_interpreter_and_a_table_in_a_notebook(made, tmp_path):
    assert repr(made) == f"SliceResult({made.out}: 5.02 M to 4.08 M parameters, not verified)"
    assert repr(made.plan) == "SlicePlan(mini: keeps 7,407 of 12,288 vocabulary rows (60.3%))"
    page = made._repr_html_()
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    assert ["vocabulary", "2,359,296", "1,422,144", "-39.7%"] in rows
    assert rows[-1][0] == "all" and rows[-1][3] == "-18.7%"
    assert "language:ko" in made.plan._repr_html_()
    made.plan.save(tmp_path / "plan.json")
    again = langslice.load_plan(tmp_path / "plan.json")
    assert again.kept.tolist() == made.plan.kept.tolist()
    told = type(made)(**{**vars(made), "out": Path("<b>")})._repr_html_()
    assert "<b>" not in told and "&lt;b&gt;" in told


@pytest.mark.usefixtures("one_thread")
def test_a_result_loads_its_model_and_tokenizer(made):
    import torch

    model, tokenizer = made.load()
    assert type(model).__name__ == "LlamaForCausalLM" and not model.training
    assert len(tokenizer) == model.get_input_embeddings().weight.shape[0] == len(made.plan.kept)
    with torch.no_grad():
        assert model(**tokenizer("한국", return_tensors="pt")).logits.shape[-1] == len(made.plan.kept)
    with pytest.raises(CheckpointError, match=r"has no modules\.json"):
        made.sentence_transformer()


@pytest.mark.usefixtures("one_thread")
def test_loaded_objects_are_sliced_and_stay_as_they_are():
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(mini_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(mini_model_path())
    with torch.no_grad():  # what is sliced is what is in memory, not what was loaded
        model.model.norm.weight += 1
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    config, size = dict(vars(model.config)), len(tokenizer)
    small, new_tokenizer = langslice.slice(model, tokenizer, languages="ko,en", verify=False)
    assert small is not model and len(new_tokenizer) == 7407 < len(tokenizer) == size
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert dict(vars(model.config)) == config
    assert (small.dtype, small.device, small.training) == (model.dtype, model.device, model.training)
    assert torch.equal(small.model.norm.weight, model.model.norm.weight)
    text = "한국어와 English"
    kept = tokenizer.convert_tokens_to_ids(new_tokenizer.convert_ids_to_tokens(range(len(new_tokenizer))))
    assert torch.equal(small.get_input_embeddings().weight, model.get_input_embeddings().weight[kept])
    with torch.no_grad():
        before = model(**tokenizer(text, return_tensors="pt")).logits[..., kept]
        after = small(**new_tokenizer(text, return_tensors="pt")).logits
    assert torch.allclose(before, after, atol=1e-2)
    langslice.slice(small, new_tokenizer, languages="ko", verify=False)  # what came out goes in


def test_objects_of_another_kind_are_refused():
    with pytest.raises(OptionError, match="`tokenizer` must be of transformers"):
        langslice.slice(_Saves(), "out", languages="ko")
    with pytest.raises(OptionError, match="`model` must be of transformers"):
        langslice.slice(5, _Saves(), languages="ko")
    with pytest.raises(PlanError, match="unknown parameter `langages`"):
        langslice.slice(_Saves(), _Saves(), langages="ko")
    with pytest.raises(OptionError, match="`out` has no meaning"):
        langslice.slice(_Saves(), _Saves(), languages="ko", out="x")


class _Saves:
    def save_pretrained(self, *_):
        raise AssertionError("nothing is saved before what was asked is understood")


def test_work_is_logged_under_the_name_of_the_package(caplog):
    with caplog.at_level(logging.INFO, logger="langslice"):
        langslice.plan("mini", languages="ko")
    assert "choosing tokens" in [record.message for record in caplog.records if record.name == "langslice"]


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("place", ["terminal", "notebook", "pipe"])
def test_work_is_shown_as_a_bar_in_a_terminal_or_a_notebook_and_nowhere_else(place, monkeypatch):
    stream = _Terminal() if place == "terminal" else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    if place == "notebook":
        monkeypatch.setattr("langslice.progress._in_notebook", lambda: True)
    langslice.plan("mini", languages="ko")
    assert ("choosing tokens" in stream.getvalue()) == (place != "pipe")
    before = stream.tell()
    langslice.plan("mini", languages="ko", report=silent)
    assert stream.tell() == before


@pytest.mark.usefixtures("one_thread")
def test_scores_and_demonstrations_need_no_file(tmp_path):
    scores = langslice.score("mini", "heads", "l2")
    assert scores.kind == "heads"
    (tmp_path / "fr-en.tsv").write_text("le sable\tthe sand\n" * 4)
    found = langslice.make_demonstrations(parallel=str(tmp_path / "fr-en.tsv"), shots=2, count=2)
    assert len(found) == 2 and found[0].languages == ("fr", "en")
    assert "languages: ko" in langslice.init("mini", "ko")


@pytest.mark.usefixtures("one_thread")
def test_the_guide_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    guide = Path(langslice.__file__).parents[1] / "docs" / "guides" / "python.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(guide), "exec"), names)
    assert "unknown parameter `sparsty`\nhint: did you mean `sparsity`?" in capsys.readouterr().out
    assert len(names["small_tokenizer"]) < 7407
    assert {path.name for path in tmp_path.iterdir()} == {"mini-ko-en", "mini-by-plan", "plan.json"}
