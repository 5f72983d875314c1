"""Masked heads and neurons against the source in which a test silences them by its own hand."""

from __future__ import annotations

import warnings

import pytest
import torch

import langslice
from langslice.model.transformers_classes import dtype_option
from tests.structure.test_structure import run
from tests.zoo import add_tokenizer, build

IDS = torch.arange(10, 40)[None]


def load(folder):
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(folder, **dtype_option("float32")).eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def silenced(folder, layer, heads, size, neurons=()):
    """The source, whose output projections read zeros in the place of some heads and neurons."""
    model = load(folder)
    block = model.model.layers[layer]

    def silence(units, width):
        def hook(module, arguments):
            given = arguments[0].clone()
            for unit in units:
                given[..., unit * width : (unit + 1) * width] = 0
            return (given, *arguments[1:])

        return hook

    block.self_attn.o_proj.register_forward_pre_hook(silence(heads, size))
    block.mlp.down_proj.register_forward_pre_hook(silence(neurons, 1))
    return model


@pytest.mark.parametrize(("model_type", "size"), [("olmo2", 6), ("llama", 10), ("qwen3", 10)])
def test_masked_heads_leave_the_others_as_they_are(model_type, size, tmp_path, capsys, monkeypatch):
    source = add_tokenizer(build(model_type, tmp_path / "source"))
    arguments = ("--drop-heads", "1:0,1", "--drop-neurons", "1:3,7", "-o", tmp_path / "out", "-q")
    code, said = run(capsys, monkeypatch, "mask", source, *arguments)
    assert code == 0, said
    expected = logits(silenced(source, 1, (0, 1), size, (3, 7)))
    assert torch.allclose(logits(load(tmp_path / "out")), expected, atol=1e-6)
    assert not torch.allclose(logits(load(source)), expected, atol=1e-3)


def test_a_norm_over_all_heads_keeps_its_queries(tmp_path):
    """What of OLMo 2 was wrong: the norm divided the other heads' queries by less when some were zero."""
    from safetensors.torch import load_file

    source = add_tokenizer(build("olmo2", tmp_path / "source"))
    langslice.slice(source, tmp_path / "out", drop_heads="1:0,1", output_style="masked")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.layers.1.self_attn.o_proj.weight"}


def test_the_proof_finds_queries_that_were_zeroed_as_well(tmp_path):
    """Verification's reference does not share the writer's idea of what masking zeroes."""
    from safetensors.torch import load_file, save_file

    source = add_tokenizer(build("olmo2", tmp_path / "source"))
    langslice.slice(source, tmp_path / "out", drop_heads="1:0,1", output_style="masked")
    file = tmp_path / "out/model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.self_attn.q_proj.weight"][:12] = 0
    save_file(tensors, file, metadata={"format": "pt"})
    outputs = next(check for check in langslice.verify(source, tmp_path / "out").checks if check.name == "outputs")
    assert outputs.passed is False


def test_the_proof_does_not_follow_the_writer(tmp_path, monkeypatch):
    """A writer that zeroes another head than the plan says is found out, although nothing else of the job disagrees."""
    from langslice.structure import edits

    own = edits._masked

    def wrong(anatomy, kept, shapes):
        zeroed = own(anatomy, kept, shapes)
        return {name: {dim: (rows + 10) % 40 for dim, rows in by_dim.items()} if name.endswith(
            ("q_proj.weight", "o_proj.weight")) else by_dim for name, by_dim in zeroed.items()}  # fmt: skip

    source = add_tokenizer(build("llama", tmp_path / "source"))
    monkeypatch.setattr(edits, "_masked", wrong)
    with pytest.raises(langslice.LangsliceError, match="outputs"):
        langslice.slice(source, tmp_path / "out", drop_heads="1:1", output_style="masked")


@pytest.mark.parametrize("style", ["masked", "stock"])
def test_neurons_of_experts(style, tmp_path):
    """Experts in one tensor have no module that could be silenced: verification zeroes what they read in memory."""
    source = add_tokenizer(build("qwen3_moe", tmp_path / "source"))
    cut = [f"{layer}:2-5" for layer in range(3)] if style == "stock" else "1:2-5"
    result = langslice.slice(source, tmp_path / "out", drop_neurons=cut, output_style=style)
    assert next(check for check in result.verification.checks if check.name == "outputs").passed
