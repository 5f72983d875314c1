"""Layouts that depend on more than the model type: fused projections, norms of heads, cross-attention, half a model."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

import langslice
from langslice.errors import PlanError
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import open_checkpoint
from tests.structure.test_families import cut, even_cut, uneven_cut
from tests.zoo import FAMILIES, add_tokenizer, build

FALCON = {
    "grouped": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "multi-query": {"new_decoder_architecture": False, "multi_query": True},
    "one each": {"new_decoder_architecture": False, "multi_query": False},
}


def build_class(name, model_type, folder):
    """A random checkpoint of a class that no auto class gives."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(model_type, **FAMILIES[model_type][1])
        torch.manual_seed(0)
        model = getattr(transformers, name)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layout", FALCON)
@pytest.mark.parametrize("replicate", [False, True])
def test_falcon(layout, replicate, tmp_path):
    folder = build("falcon", tmp_path / "source", **FALCON[layout])
    anatomy = read_anatomy(open_checkpoint(folder))
    choice = {"replicate_kv": replicate, "drop_neurons": "0:3"}
    kept, _ = cut(folder, tmp_path / "out", **choice, drop_heads="0:2,3")
    assert kept.style == "sliced"
    if layout == "grouped" and not replicate:
        with pytest.raises(PlanError, match="go on sharing evenly"):
            cut(folder, tmp_path / "out", **choice, drop_heads="1:0")
        return
    kept, _ = cut(folder, tmp_path / "out", **choice, drop_heads=["0:1", "2:0,3"])
    replicated = replicate and layout == "grouped"
    expected = {"grouped": (0, 1, 1), "multi-query": (0,), "one each": (0, 2, 3)}[layout]
    assert kept.key_value["layers.self"][0] == expected
    assert (1 in kept.key_value["layers.self"]) == replicated
    assert anatomy.heads["layers.self"][0].key_value == {"grouped": 2, "multi-query": 1, "one each": 4}[layout]


@pytest.mark.parametrize("norm", [False, True])
def test_phi_with_a_norm_for_heads(norm, tmp_path):
    folder = build("phi", tmp_path / "source", qk_layernorm=norm)
    anatomy = read_anatomy(open_checkpoint(folder))
    kept, _ = cut(folder, tmp_path / "out", **even_cut(anatomy, "phi"))
    assert kept.style == ("sliced" if norm else "stock")
    if norm:
        with pytest.raises(PlanError, match="with `qk_layernorm` ties the size of a head"):
            cut(folder, tmp_path / "out", **even_cut(anatomy, "phi"), output_style="stock")


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("bert", {"is_decoder": True}), ("xlm-roberta", {"is_decoder": True}), ("gpt2", {})],
)
@pytest.mark.parametrize("style", ["auto", "masked"])
def test_cross_attention_without_an_encoder(model_type, options, style, tmp_path):
    folder = build(model_type, tmp_path / "source", add_cross_attention=True, **options)
    anatomy = read_anatomy(open_checkpoint(folder))
    assert set(anatomy.heads) == {"layers.self", "layers.cross"}
    assert anatomy.neurons["layers"][0] == (44 if model_type != "gpt2" else 96)
    if style == "auto":
        cut(folder, tmp_path / "out", drop_layers="1")
        cut(folder, tmp_path / "out", **even_cut(anatomy, model_type))
    cut(folder, tmp_path / "out", **uneven_cut(anatomy), output_style=style)


def test_the_proof_sees_a_head_of_cross_attention(tmp_path):
    """Another head than the plan says, gone from a cross-attention that only an encoder's states feed."""
    from safetensors.torch import load_file, save_file

    folder = build("bert", tmp_path / "source", add_cross_attention=True, is_decoder=True)
    add_tokenizer(folder)
    langslice.slice(folder, tmp_path / "out", drop_heads="layers.cross.1:2", output_style="masked")
    file = tmp_path / "out/model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.1.crossattention.output.dense.weight"
    tensors[name] = tensors[name].roll(6, dims=1)
    save_file(tensors, file, metadata={"format": "pt"})
    verification = langslice.verify(folder, tmp_path / "out")
    assert next(check for check in verification.checks if check.name == "outputs").passed is False


@pytest.mark.parametrize(
    ("name", "model_type", "stack"),
    [
        ("T5EncoderModel", "t5", "encoder"), ("MT5EncoderModel", "mt5", "encoder"), ("UMT5EncoderModel", "umt5", "encoder"),
        ("BartForCausalLM", "bart", "decoder"), ("MarianForCausalLM", "marian", "decoder"),
    ],
)  # fmt: skip
def test_half_a_model(name, model_type, stack, tmp_path):
    folder = build_class(name, model_type, tmp_path / "source")
    anatomy = read_anatomy(open_checkpoint(folder))
    assert list(anatomy.layers) == [stack]
    kept, _ = cut(folder, tmp_path / "out", drop_layers="0")
    assert kept.style == "stock"
    cut(folder, tmp_path / "out", **even_cut(anatomy, model_type))
    kept, _ = cut(folder, tmp_path / "out", **uneven_cut(anatomy))
    assert kept.style == "sliced"


def test_an_encoder_alone_through_the_command_line_of_a_client(tmp_path):
    """Layers, heads and neurons of a T5EncoderModel, loaded by its unmodified class, against the source by hand."""
    import transformers

    folder = add_tokenizer(build_class("T5EncoderModel", "t5", tmp_path / "source"))
    langslice.slice(folder, tmp_path / "out", drop_layers="0", drop_neurons="1:0-3")
    assert json.loads((tmp_path / "out/config.json").read_text())["num_layers"] == 1
    before = transformers.T5EncoderModel.from_pretrained(folder).eval()
    after = transformers.T5EncoderModel.from_pretrained(tmp_path / "out").eval()
    blocks = before.encoder.block
    with torch.no_grad():
        blocks[1].layer[1].DenseReluDense.wo.weight[:, :4] = 0
        blocks[1].layer[0].SelfAttention.relative_attention_bias = (
            blocks[0].layer[0].SelfAttention.relative_attention_bias
        )
        blocks[1].layer[0].SelfAttention.has_relative_attention_bias = True
        del blocks[0]
        ids = torch.arange(10, 40)[None]
        assert torch.allclose(before(ids).last_hidden_state, after(ids).last_hidden_state, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "model_type", "heads_by"),
    [("T5EncoderModel", "t5", "gradient"), ("BartForCausalLM", "bart", "l2")],
)
def test_half_a_model_is_scored_on_text(name, model_type, heads_by, tmp_path):
    folder = add_tokenizer(build_class(name, model_type, tmp_path / "source"))
    text = tmp_path / "text.txt"
    text.write_text("the land and men ling sed\n" * 6 + "tin man lo\n")
    cut_by = {"heads_sparsity": 0.25, "neurons_sparsity": 0.25, "uniform": True, "calibration": str(text)}
    layers = {"drop_layers_by": "block-influence:1"}
    result = langslice.slice(folder, tmp_path / "out", **cut_by, **layers, heads_by=heads_by)
    assert next(check for check in result.verification.checks if check.name == "outputs").passed
    assert result.plan.structure.heads and result.plan.structure.neurons and result.plan.structure.layers
    if heads_by == "l2":
        with pytest.raises(langslice.LangsliceError, match=r"decoder\.cross reads an encoder that is no part"):
            langslice.slice(folder, tmp_path / "none", **cut_by)


def test_an_incomplete_model_is_not_taken_for_half_a_model(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = build("t5", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("decoder.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PlanError, match="no tensor of this checkpoint is in a layer of its decoder stack"):
        read_anatomy(open_checkpoint(folder))


def test_layers_that_share_their_numbers_are_told_apart_or_refused(tmp_path):
    """ALBERT with two groups numbers the layers of each from 0: a head of layer 0 would go from both."""
    source = add_tokenizer(build("albert", tmp_path / "source", num_hidden_groups=2, num_hidden_layers=4))
    with pytest.raises(PlanError, match=r"counted more than once: under .*groups\.0\.albert_layers\. and .*groups\.1"):
        langslice.slice(source, tmp_path / "out", drop_heads="0:1")
    langslice.slice(source, tmp_path / "out", scripts="Latn")
    inner = build("albert", tmp_path / "inner", inner_group_num=2)
    cut(inner, tmp_path / "cut", drop_heads="1:1", drop_neurons="0:2-8")
