"""Weights other than the main ones: heads and adapters stay, sliced axes are followed, and only copies are left out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import langslice
from langslice.errors import LangsliceError
from tests.zoo import VOCABULARY

LATIN = {"scripts": "Latn", "languages": "en", "max_vocab": 100}


@pytest.fixture
def source(zoo, tmp_path):
    return shutil.copytree(zoo("xlm-roberta"), tmp_path / "source")


def save(path, **tensors):
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def load(path):
    import torch
    from safetensors.torch import load_file

    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def test_heads_that_read_hidden_states_are_carried(source, tmp_path):
    """As bge-m3 keeps its sparse and its ColBERT head."""
    import torch

    save(source / "sparse_linear.pt", weight=torch.randn(1, 24), bias=torch.randn(1))
    save(source / "colbert_linear.pt", weight=torch.randn(24, 24), bias=torch.randn(24))
    save(source / "heads/rerank.safetensors", **{"layers.0.weight": torch.randn(3, 24)})
    result = langslice.slice(source, tmp_path / "out", **LATIN)
    assert result.verification.passed
    for name in ("sparse_linear.pt", "colbert_linear.pt", "heads/rerank.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
        assert name not in result.left_out


@pytest.mark.parametrize("name", ["vocabulary_bias.pt", "head/model.safetensors", "head/pytorch_model.bin"])
def test_what_runs_along_the_vocabulary_is_cut(source, tmp_path, name):
    import torch

    table, bias = torch.randn(VOCABULARY, 7), torch.randn(VOCABULARY)
    save(source / name, table=table, bias=bias, inner=torch.randn(5))
    result = langslice.slice(source, tmp_path / "out", **LATIN)
    rows = torch.from_numpy(result.plan.new_to_old)
    assert len(rows) < VOCABULARY
    found = load(tmp_path / "out" / name)
    assert torch.equal(found["table"], table[rows])
    assert torch.equal(found["bias"], bias[rows])
    assert torch.equal(found["inner"], load(source / name)["inner"])


def test_only_copies_of_the_main_weights_are_left_out(source, tmp_path):
    import torch

    main = load(source / "model.safetensors")
    halves = {f"prefix.{name}": value.half() if value.is_floating_point() else value for name, value in main.items()}
    save(source / "copies/half.safetensors", **halves)
    save(source / "last.pt", **main)
    other = {name: value + 1 if value.is_floating_point() else value for name, value in main.items()}
    save(source / "average.bin", **other)
    save(source / "pytorch_model.bin", **main)
    result = langslice.slice(source, tmp_path / "out", **LATIN)
    for name in ("copies/half.safetensors", "last.pt", "pytorch_model.bin"):
        assert "the same tensors as model.safetensors" in result.left_out[name], name
        assert not (tmp_path / "out" / name).exists()
    table = "roberta.embeddings.word_embeddings.weight"
    rows = torch.from_numpy(result.plan.new_to_old)
    assert torch.equal(load(tmp_path / "out/average.bin")[table], other[table][rows])


def test_weights_that_transformers_does_not_read_are_left_out_and_what_they_held_is_said(source, tmp_path):
    import torch

    save(source / "pytorch_model.bin", more=torch.randn(3))
    result = langslice.slice(source, tmp_path / "out", **LATIN)
    assert result.left_out["pytorch_model.bin"] == (
        "weights that nothing reads next to model.safetensors; 1 of its tensors differ, such as more"
    )


def test_a_file_that_holds_no_tensors_stops_the_job(source, tmp_path):
    import torch

    torch.save({"state": {"weight": torch.ones(2)}, "epoch": 3}, source / "last.ckpt")
    with pytest.raises(LangsliceError, match=r"last\.ckpt .* cannot be told from old weights") as error:
        langslice.plan(source, **LATIN)
    assert '`leave_out="last.ckpt"`' in error.value.hint
    assert langslice.slice(source, tmp_path / "out", leave_out="last.ckpt", **LATIN).verification.passed


def test_a_length_that_may_be_either_axis_stops_the_job(zoo, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModel

    from tests.zoo import add_tokenizer

    folder = tmp_path / "source"
    config = AutoConfig.for_model(
        "bert", vocab_size=128, hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=44
    )
    AutoModel.from_config(config).save_pretrained(folder)
    add_tokenizer(folder)
    save(folder / "dense.pt", weight=torch.randn(128, 3))
    with pytest.raises(LangsliceError, match=r"dense\.pt: weight, shape \(128, 3\).*vocabulary or another axis"):
        langslice.plan(folder, **LATIN)
    langslice.slice(folder, tmp_path / "out", carry="dense.pt", **LATIN)
    assert (tmp_path / "out/dense.pt").read_bytes() == (folder / "dense.pt").read_bytes()


def lora(folder, out, **settings):
    """An adapter in a subfolder of its base, every number its own."""
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForMaskedLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForMaskedLM.from_pretrained(folder), LoraConfig(r=3, **settings))
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(out)


@pytest.mark.parametrize(
    ("cut", "modules"),
    [
        ({}, ["query", "word_embeddings"]),
        ({"drop_layers": "1"}, ["query", "word_embeddings"]),
        ({"drop_heads": "0:0", "uniform": False, "output_style": "sliced"}, ["query"]),
        ({"drop_neurons": ["0:0-9", "1:0-9", "2:0-9"]}, ["intermediate.dense", "query"]),
    ],
)
def test_a_lora_in_a_subfolder_follows_every_cut(source, tmp_path, cut, modules):
    """The slice with the adapter that lies in it does what the source does with its own: merged weights agree."""
    from peft import PeftModel

    lora(source, source / "tuned", target_modules=modules, layers_to_transform=None)
    (source / "tuned/README.md").unlink()
    result = langslice.slice(source, tmp_path / "out", **LATIN, **cut)
    whole = merged(PeftModel, source)
    mine = merged(PeftModel, tmp_path / "out")
    from langslice.model.anatomy import read_anatomy
    from langslice.model.checkpoint import open_checkpoint
    from langslice.planning.source import Source
    from langslice.planning.tensors import tensor_edits

    checkpoint = open_checkpoint(source)
    assert read_anatomy(checkpoint).layers == {"layers": 3}
    compared = 0
    for name, edit in tensor_edits(result.plan, Source(checkpoint)).items():
        if edit.action != "drop" and name in whole:
            expected = whole[name]
            for dim, indices in edit.indices.items():
                expected = np.take(expected, indices, axis=dim)
            np.testing.assert_allclose(mine[edit.name or name], expected, rtol=1e-5, atol=1e-6)
            compared += 1
    assert compared > 20


def merged(peft_model, folder):
    import warnings

    from transformers import AutoModelForMaskedLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
        model = peft_model.from_pretrained(base, folder / "tuned").merge_and_unload()
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_a_lora_that_counts_layers_is_refused_when_layers_go(source):
    lora(source, source / "tuned", target_modules=["query"], layers_to_transform=[0, 2])
    with pytest.raises(LangsliceError, match=r"names layers \(`layers_to_transform`\)") as error:
        langslice.plan(source, drop_layers="1")
    assert "langslice adapter" in error.value.hint
    assert langslice.plan(source, **LATIN)


def test_trained_tokens_and_prompts_of_an_adapter(source, tmp_path):
    """Ids that adapter_config.json trains are kept and renumbered; a trained prompt is carried."""
    import torch

    lora(source, source / "tuned", target_modules=["query"], trainable_token_indices=[120, 121])
    config = json.loads((source / "tuned/adapter_config.json").read_text())
    assert config["trainable_token_indices"] == [120, 121]
    (source / "prompt").mkdir()
    save(source / "prompt/adapter_model.safetensors", prompt_embeddings=torch.randn(4, 24))
    settings = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": 24, "task_type": None}
    (source / "prompt/adapter_config.json").write_text(json.dumps(settings))
    result = langslice.slice(source, tmp_path / "out", **LATIN)
    kept = result.plan.kept.tolist()
    after = json.loads((tmp_path / "out/tuned/adapter_config.json").read_text())["trainable_token_indices"]
    assert [kept[new] for new in after] == [120, 121]
    for name in ("tuned/adapter_model.safetensors", "prompt/adapter_model.safetensors", "prompt/adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def test_an_adapter_beside_the_weights_is_left_out_as_transformers_would_load_its_base(source, tmp_path):
    lora(source, tmp_path / "tuned", target_modules=["query"])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(tmp_path / "tuned" / name, source / name)
    result = langslice.slice(source, tmp_path / "out", verify=False, **LATIN)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert "loads the base that it names" in result.left_out[name]


def test_a_side_head_survives_restoring(source, tmp_path):
    import torch

    from langslice.restoration import restore

    save(source / "sparse_linear.pt", weight=torch.randn(1, 24))
    save(source / "bias.pt", weight=torch.randn(VOCABULARY))
    langslice.slice(source, tmp_path / "out", **LATIN)
    restore(tmp_path / "out", tmp_path / "full", base=source, everything=True)
    for name in ("sparse_linear.pt", "bias.pt"):
        assert (tmp_path / "full" / name).read_bytes() == (source / name).read_bytes()
