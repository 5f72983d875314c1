"""Structural slices of a folder that holds weights and config.json alone."""

from __future__ import annotations

import json

import pytest
import torch

import langslice
from langslice.errors import NoTokenizerError
from langslice.model.checkpoint import open_checkpoint
from langslice.model.source_tokenizer import source_tokenizer
from tests.structure.test_masked import load, logits
from tests.structure.test_structure import run
from tests.zoo import build


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A model without a tokenizer."""
    return build("llama", tmp_path_factory.mktemp("bare") / "source")


@pytest.mark.parametrize(
    "cut",
    [
        ["--drop-layers", "1"],
        ["--drop-heads", "0:0,1", "--drop-neurons", "2:5-9"],
        ["--heads-sparsity", "0.5", "--neurons-sparsity", "0.25", "--uniform"],
        ["--drop-layers", "0", "--pad-to-multiple-of", "64"],
        ["--sparsity", "0.25", "--weights-by", "magnitude"],
        ["--drop-heads", "0:0,1", "--output-style", "masked"],
    ],
)  # fmt: skip
def test_cuts_by_number_and_by_norm(cut, bare, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    code, said = run(capsys, monkeypatch, "slice", bare, *cut, "-o", out)
    assert code == 0, said
    checks = {check["name"]: check for check in json.loads((out / "slice.json").read_text())["proof"]["checks"]}
    assert checks["tokenisation"]["passed"] is None
    assert "no tokenizer, so that what is run is run on random ids alone" in checks["tokenisation"]["detail"]
    assert checks["outputs"]["passed"] or "--sparsity" in cut
    assert "samples of random ids" in checks["outputs"]["detail"] or "--sparsity" in cut
    assert "AutoTokenizer" not in (out / "README.md").read_text()
    assert run(capsys, monkeypatch, "verify", bare, out, "-q")[0] == 0


def test_a_plan_in_between(bare, tmp_path, capsys, monkeypatch):
    plan = tmp_path / "plan.json"
    assert run(capsys, monkeypatch, "plan", bare, "--drop-layers", "1", "-o", plan, "-q")[0] == 0
    assert run(capsys, monkeypatch, "slice", bare, "--plan", plan, "-o", tmp_path / "out", "-q")[0] == 0
    before, after = load(bare), load(tmp_path / "out")
    del before.model.layers[1]
    for number, layer in enumerate(before.model.layers):
        layer.self_attn.layer_idx = number
    before.config.num_hidden_layers = 2
    assert torch.allclose(logits(before), logits(after), atol=1e-6)


def test_the_proof_compares_on_random_ids(bare, tmp_path):
    from safetensors.torch import load_file, save_file

    langslice.slice(bare, tmp_path / "out", drop_layers="1")
    file = tmp_path / "out/model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3] += 0.5
    save_file(tensors, file, metadata={"format": "pt"})
    outputs = next(check for check in langslice.verify(bare, tmp_path / "out").checks if check.name == "outputs")
    assert outputs.passed is False
    assert outputs.detail.startswith("5 samples of random ids")


@pytest.mark.parametrize(
    "cut", [["-l", "ko"], ["--drop-layers", "1", "--scripts", "Latn"], ["--drop-scripts", "Hang"], []]
)
def test_cuts_of_tokens_need_one(cut, bare, tmp_path, capsys, monkeypatch):
    code, said = run(capsys, monkeypatch, "slice", bare, *cut, "-o", tmp_path / "out")
    assert code == 2
    assert "holds no tokenizer" in said
    assert "can be pruned without" in said
    assert not list(tmp_path.iterdir())


def test_an_absent_tokenizer_reads_no_text(bare):
    checkpoint = open_checkpoint(bare)
    with pytest.raises(NoTokenizerError):
        source_tokenizer(checkpoint)
    absent = source_tokenizer(checkpoint, needed=False)
    assert absent.tokens == () and absent.files == ()
    with pytest.raises(langslice.LangsliceError, match="no text can be read"):
        absent.encode(["text"])


def test_settings_without_a_vocabulary_are_carried(bare, tmp_path):
    import shutil

    source = shutil.copytree(bare, tmp_path / "source")
    (source / "tokenizer_config.json").write_text('{"model_max_length": 96}')
    langslice.slice(source, tmp_path / "out", drop_layers="1")
    assert (tmp_path / "out/tokenizer_config.json").read_bytes() == (source / "tokenizer_config.json").read_bytes()


def test_inspect_says_what_cuts_save(bare):
    found = langslice.inspect(bare)
    assert {unit.name for unit in found.units} >= {"layer", "neuron"}
    assert found.tokens == 0 and not found.savings
    assert any("no tokenizer" in note for note in found.notes)
    with pytest.raises(NoTokenizerError):
        langslice.inspect(bare, languages="ko")
