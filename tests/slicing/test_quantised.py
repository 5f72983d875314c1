"""Quantised sources: what can be sliced is, every other byte as it was; what cannot is said before anything is written."""

from __future__ import annotations

import json
import shutil

import pytest

import langslice
from langslice.cli.app import main
from langslice.errors import CheckpointError, PlanError, UnknownTensorError


def stored(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def write(folder, tensors, method, **settings):
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def gptq(zoo, tmp_path):
    """Every linear packed as GPTQ packs it, the head too."""
    import torch

    folder = shutil.copytree(zoo("llama"), tmp_path / "gptq")
    tensors = stored(folder)
    for name in [name[:-7] for name in tensors if name.endswith("_proj.weight") or name == "lm_head.weight"]:
        out, inputs = tensors.pop(f"{name}.weight").shape
        tensors[f"{name}.qweight"] = torch.randint(0, 1 << 30, (inputs // 8, out), dtype=torch.int32)
        tensors[f"{name}.qzeros"] = torch.randint(0, 1 << 30, (max(inputs // 8, 1), out // 8), dtype=torch.int32)
        tensors[f"{name}.scales"] = torch.rand(max(inputs // 8, 1), out).half()
        tensors[f"{name}.g_idx"] = (torch.arange(inputs) // 8).int()
    return write(folder, tensors, "gptq", bits=4, group_size=8, lm_head=True)


@pytest.fixture
def int8(zoo, tmp_path):
    """A head as bitsandbytes stores it in eight bits."""
    import torch

    folder = shutil.copytree(zoo("llama"), tmp_path / "int8")
    tensors = stored(folder)
    tensors["lm_head.weight"] = torch.randint(-127, 127, tuple(tensors["lm_head.weight"].shape), dtype=torch.int8)
    tensors["lm_head.SCB"] = torch.rand(len(tensors["lm_head.weight"]))
    tensors["lm_head.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    return write(folder, tensors, "bitsandbytes", load_in_8bit=True)


@pytest.mark.parametrize("kind", ["gptq", "int8"])
def test_a_quantised_head_is_named_as_what_it_is(request, kind, tmp_path):
    source = request.getfixturevalue(kind)
    with pytest.raises(UnknownTensorError, match="lm_head runs along the vocabulary and is stored quantised") as error:
        langslice.slice(source, tmp_path / "out", scripts="Latn")
    assert "families.py" not in str(error.value)
    assert "quantise the slice" in error.value.hint
    notes = langslice.inspect(source, languages="en").notes
    assert any("stored quantised" in note for note in notes)


@pytest.fixture
def int4(zoo, tmp_path):
    """Linears as bitsandbytes packs them: two weights a byte, in one column."""
    import torch

    folder = shutil.copytree(zoo("llama"), tmp_path / "int4")
    tensors = stored(folder)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        size = tensors[name].numel()
        tensors[name] = torch.randint(0, 255, (size // 2, 1), dtype=torch.uint8)
        tensors[f"{name}.absmax"] = torch.rand(size // 64 + 1)
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = torch.zeros(90, dtype=torch.uint8)
    return write(folder, tensors, "bitsandbytes", load_in_4bit=True)


@pytest.fixture
def fp8(zoo, tmp_path):
    """Linears in eight-bit floating point, with a scale a block."""
    import torch

    folder = shutil.copytree(zoo("llama"), tmp_path / "fp8")
    tensors = stored(folder)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = torch.ones(1, 1)
    return write(folder, tensors, "fp8", weight_block_size=[128, 128])


@pytest.mark.parametrize("kind", ["gptq", "int8", "int4", "fp8"])
def test_layers_of_a_quantised_model_are_dropped(request, kind, tmp_path):
    import torch

    source, out = request.getfixturevalue(kind), tmp_path / "out"
    result = langslice.slice(source, out, drop_layers="1")
    assert result.verification.passed
    before, after = stored(source), stored(out)
    moved = {name.replace("layers.1.", "layers.2."): name for name in after}
    assert set(moved) == {name for name in before if "layers.1." not in name}
    for old, new in moved.items():
        assert torch.equal(before[old], after[new]), new
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 2
    assert not any("loads in" in note or "vLLM" in note for note in result.plan.notes)
    assert any(
        f"quantised ({kind if kind in ('gptq', 'fp8') else 'bitsandbytes'})" in note for note in result.plan.notes
    )
    with pytest.raises(PlanError, match="`drop_neurons`: the weights are quantised"):
        langslice.plan(source, drop_neurons="0:1")


def test_the_vocabulary_of_a_quantised_model_with_a_plain_head_is_cut(gptq, tmp_path):
    import torch

    tensors = stored(gptq)
    for name in [name for name in tensors if name.startswith("lm_head.")]:
        del tensors[name]
    tensors["lm_head.weight"] = torch.randn(131, 24)
    write(gptq, tensors, "gptq", bits=4, group_size=8)
    result = langslice.slice(gptq, tmp_path / "out", scripts="Latn", drop_layers="0")
    assert result.verification.passed
    after = stored(tmp_path / "out")
    assert torch.equal(after["lm_head.weight"], tensors["lm_head.weight"][result.plan.new_to_old])
    name = "model.layers.{}.self_attn.q_proj.qweight"
    assert torch.equal(after[name.format(0)], tensors[name.format(1)])


def test_pruning_is_refused_before_anything_is_written(gptq, tmp_path, monkeypatch, capsys):
    arguments = ["slice", str(gptq), "-o", str(tmp_path / "out"), "--sparsity", "0.3", "--weights-by", "magnitude"]
    monkeypatch.setattr("sys.argv", ["langslice", *arguments])
    from langslice.slicing import main as job

    monkeypatch.setattr(job, "staging_folder", None)  # anything that is written goes through it
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith(f"error: quantised weights cannot be pruned\n  {gptq}\n")
    assert "quantization_config (gptq)" in said
    with pytest.raises(CheckpointError, match="quantised weights cannot be pruned"):
        langslice.plan(gptq, sparsity=0.3, weights_by="magnitude")
