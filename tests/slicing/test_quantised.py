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


def test_a_quantised_head_is_named_as_what_it_is(gptq, tmp_path):
    source = gptq
    with pytest.raises(UnknownTensorError, match="lm_head runs along the vocabulary and is stored quantised") as error:
        langslice.slice(source, tmp_path / "out", scripts="Latn")
    assert "families.py" not in str(error.value)
    assert "quantise the slice" in error.value.hint
    notes = langslice.inspect(source, languages="en").notes
    assert any("stored quantised" in note for note in notes)


def test_a_head_in_eight_bits_is_cut_with_its_scales(int8, tmp_path):
    import torch

    result = langslice.slice(int8, tmp_path / "out", scripts="Latn")
    before, after, rows = stored(int8), stored(tmp_path / "out"), result.plan.new_to_old
    assert result.verification.passed and len(rows) < len(before["lm_head.SCB"])
    for name in ("lm_head.weight", "lm_head.SCB"):
        assert torch.equal(after[name], before[name][rows]) and after[name].dtype == before[name].dtype
    assert torch.equal(after["lm_head.weight_format"], before["lm_head.weight_format"])


@pytest.mark.parametrize(("shape", "along"), [((131, 1), True), ((1,), False), ((131, 2), None)])
def test_a_head_in_eight_bit_floats_is_cut_where_a_scale_belongs_to_a_row(fp8, tmp_path, shape, along):
    import torch

    tensors = stored(fp8)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.float8_e4m3fn)
    tensors["lm_head.weight_scale"] = torch.rand(shape)
    write(fp8, tensors, "compressed-tensors", format="float-quantized")
    if along is None:
        with pytest.raises(UnknownTensorError, match="found weight_scale"):
            langslice.slice(fp8, tmp_path / "out", scripts="Latn")
        return
    result = langslice.slice(fp8, tmp_path / "out", scripts="Latn")
    after, rows = stored(tmp_path / "out"), result.plan.new_to_old
    scale = tensors["lm_head.weight_scale"]
    assert torch.equal(after["lm_head.weight_scale"], scale[rows] if along else scale)
    assert torch.equal(after["lm_head.weight"].view(torch.uint8), tensors["lm_head.weight"].view(torch.uint8)[rows])


def packed(zoo, folder, method, parts, **settings):
    """Linears stored in parts, the embedding and the head plain.

    parts  rows and columns of a weight -> ending of a part -> tensor
    """
    shutil.copytree(zoo("llama"), folder)
    tensors = stored(folder)
    for name in [name[:-7] for name in tensors if name.endswith("_proj.weight")]:
        made = parts(*tensors.pop(f"{name}.weight").shape)
        tensors |= {f"{name}.{end}": tensor for end, tensor in made.items()}
    return write(folder, tensors, method, **settings)


@pytest.fixture
def awq(zoo, tmp_path):
    """Eight columns of the output to an integer, scales by groups of eight inputs."""
    import torch

    def parts(out, inputs):
        groups = max(inputs // 8, 1)
        return {
            "qweight": torch.randint(0, 1 << 30, (inputs, out // 8), dtype=torch.int32),
            "qzeros": torch.randint(0, 1 << 30, (groups, out // 8), dtype=torch.int32),
            "scales": torch.rand(groups, out).half(),
        }

    return packed(zoo, tmp_path / "awq", "awq", parts, bits=4, group_size=8, version="gemm", zero_point=True)


@pytest.fixture
def w4a16(zoo, tmp_path):
    """As compressed-tensors packs four bits: eight inputs to an integer, the shape next to it."""
    import torch

    def parts(out, inputs):
        return {
            "weight_packed": torch.randint(0, 1 << 30, (out, inputs // 8), dtype=torch.int32),
            "weight_scale": torch.rand(out, max(inputs // 8, 1)).bfloat16(),
            "weight_shape": torch.tensor([out, inputs]),
        }

    groups = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 8, "strategy": "group"}}}
    return packed(
        zoo, tmp_path / "w4a16", "compressed-tensors", parts,
        format="pack-quantized", config_groups=groups, ignore=["lm_head"],
    )  # fmt: skip


@pytest.fixture
def w8a8(zoo, tmp_path):
    """As compressed-tensors stores eight-bit floats: a scale for each output, and one for the input."""
    import torch

    def parts(out, inputs):
        weight = torch.randn(out, inputs).to(torch.float8_e4m3fn)
        return {"weight": weight, "weight_scale": torch.rand(out, 1).bfloat16(), "input_scale": torch.rand(1)}

    groups = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}
    return packed(
        zoo, tmp_path / "w8a8", "compressed-tensors", parts,
        format="float-quantized", config_groups=groups, ignore=["lm_head"],
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["awq", "w4a16", "w8a8", "int4", "fp8"])
def test_vocabulary_and_layers_go_and_what_is_inside_a_layer_stays_byte_for_byte(request, kind, tmp_path):
    import torch

    source, out = request.getfixturevalue(kind), tmp_path / "out"
    result = langslice.slice(source, out, scripts="Latn", drop_layers="0")
    assert result.verification.passed
    before, after, rows = stored(source), stored(out), result.plan.new_to_old
    assert len(rows) < 131
    for name, tensor in after.items():
        number = name.split(".")[2] if name.startswith("model.layers.") else ""
        old = before[name.replace(f"layers.{number}.", f"layers.{int(number) + 1}.") if number else name]
        old = old[rows] if name in ("model.embed_tokens.weight", "lm_head.weight") else old
        assert old.dtype == tensor.dtype and torch.equal(
            old.flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)
        ), name
    config, given = (json.loads((folder / "config.json").read_text()) for folder in (out, source))
    assert config["quantization_config"] == given["quantization_config"] and config["num_hidden_layers"] == 2
    with pytest.raises(PlanError, match="`drop_heads`: the weights are quantised"):
        langslice.plan(source, drop_heads="0:1")


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
