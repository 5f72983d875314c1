"""What cannot be sliced is said before anything is scored or written."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest

import langslice
from langslice.errors import PlanError
from tests.structure.test_structure import run
from tests.zoo import add_tokenizer, build


@pytest.fixture
def unscored(monkeypatch):
    """A world in which scores cannot be computed."""
    from langslice.scoring import methods

    def compute(*arguments, **options):
        raise AssertionError("something was scored")

    monkeypatch.setattr(methods, "compute", compute)


HEADS, NEURONS = {"heads_sparsity": 0.5}, {"neurons_sparsity": 0.25}
RENAMED = "other names as it loads them"
REFUSED = [
    *((name, cut, RENAMED) for name in ("gte", "jina_embeddings_v3", "nomic_bert") for cut in (HEADS, NEURONS)),
    ("phi3", HEADS, "splits the fused"),
    ("gemma3", HEADS, "wrapper"),
    ("gemma3", NEURONS, "wrapper"),
    ("qwen3_moe", NEURONS, "one tensor"),
    ("olmo2", HEADS, "a norm spans"),
    ("olmo2", {**HEADS, "uniform": True}, "a norm spans"),
    ("bert", {**HEADS, "output_style": "stock"}, "unmodified code cannot express"),
    ("bert", {**HEADS, "output_style": "stock", "uniform": True}, "unmodified code cannot express"),
    ("gte", {"language_neurons": True, "languages": "ko", "uniform": True}, RENAMED),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "cut", "said"), REFUSED)
def test_cuts_by_score_that_cannot_be_written(model_type, cut, said, zoo, tmp_path, unscored):
    with pytest.raises(PlanError, match=said) as caught:
        langslice.slice(zoo(model_type), tmp_path / "out", **cut)
    assert "masked" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model_type", "cut"),
    [
        ("gte", {**HEADS, **NEURONS, "uniform": True}),
        ("nomic_bert", {**HEADS, **NEURONS, "output_style": "masked"}),
        ("jina_embeddings_v3", {**NEURONS, "uniform": True}),
        ("qwen3_moe", {"neurons_sparsity": 0.2, "uniform": True}),
        ("phi3", {**HEADS, "uniform": True}),
        ("olmo2", {**HEADS, "output_style": "masked"}),
        ("bert", {**HEADS, **NEURONS}),
        ("bloom", {**HEADS, **NEURONS}),
    ],
)
def test_cuts_of_the_same_kind_that_can(model_type, cut, zoo, tmp_path):
    result = langslice.slice(zoo(model_type), tmp_path / "out", **cut)
    assert next(check for check in result.verification.checks if check.name == "outputs").passed
    assert result.plan.structure.heads or result.plan.structure.neurons


@pytest.fixture(scope="module")
def weighing(tmp_path_factory):
    """An embedding model whose pooling weighs the outputs of its layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer, WeightedLayerPooling

        folder = tmp_path_factory.mktemp("weighing")
        bert = add_tokenizer(build("bert", folder / "bert"))
        module = Transformer(str(bert), config_args={"output_hidden_states": True})
        weights = WeightedLayerPooling(24, num_hidden_layers=3, layer_start=1)
        SentenceTransformer(modules=[module, weights, Pooling(24)], device="cpu").save(str(folder / "source"))
    return folder / "source"


def encode(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu").encode(["the land and men"])


@pytest.mark.parametrize(
    "cut",
    [["--drop-layers", "1"], ["--first-layers", "2"], ["--drop-layers-by", "block-influence:1"], ["--layers", "0-1"]],
)
def test_layers_that_a_pooling_module_weighs(cut, weighing, tmp_path, capsys, monkeypatch, unscored):
    code, said = run(capsys, monkeypatch, "slice", weighing, *cut, "-o", tmp_path / "out")
    assert code == 2
    assert "1_WeightedLayerPooling" in said and "holds a weight for the output of each" in said
    assert not list(tmp_path.iterdir())


def test_an_edited_plan_that_drops_them(weighing, tmp_path, capsys, monkeypatch):
    plan = tmp_path / "plan.json"
    assert run(capsys, monkeypatch, "plan", weighing, "--drop-neurons", "1:0-3", "-o", plan, "-q")[0] == 0
    document = json.loads(plan.read_text())
    document["structure"]["layers"] = {"layers": [0, 1]}
    document["structure"]["config"]["num_hidden_layers"] = 2
    plan.write_text(json.dumps(document))
    code, said = run(capsys, monkeypatch, "slice", weighing, "--plan", plan, "-o", tmp_path / "out")
    assert code == 2
    assert "1_WeightedLayerPooling" in said


def test_its_heads_neurons_and_vocabulary_can_be_cut(weighing, tmp_path):
    langslice.slice(weighing, tmp_path / "out", drop_neurons=["0:0-3", "1:0-3", "2:0-3"], scripts="Latn")
    assert encode(tmp_path / "out").shape == (1, 24)
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "field", "cut"),
    [
        ("config_args", "num_hidden_layers", {"drop_layers": "1"}),
        ("config_kwargs", "intermediate_size", {"drop_neurons": ["0:1", "1:1", "2:1"]}),
        ("model_args", "num_attention_heads", {"drop_heads": "0:1"}),
    ],
)
def test_sizes_that_sentence_transformers_sets_itself(entry, field, cut, zoo, tmp_path):
    source = shutil.copytree(zoo("bert"), tmp_path / "source")
    settings = source / "sentence_bert_config.json"
    settings.write_text(json.dumps({"max_seq_length": 64, entry: {field: 3}}))
    with pytest.raises(PlanError, match=f"`{entry}` sets `{field}` in the place of config.json"):
        langslice.slice(source, tmp_path / "out", **cut)
    settings.write_text(json.dumps({"max_seq_length": 64, entry: {"output_hidden_states": True}}))
    langslice.slice(source, tmp_path / "out", verify=False, **cut)
