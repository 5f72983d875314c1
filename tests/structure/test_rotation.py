"""Hidden states that are rotated before they are cut compute what the source does whose stream stays within the kept space."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import langslice
import langslice.structure.rotation as rotation
from langslice.errors import PlanError, VerificationError
from langslice.mini import heldout_text, mini_model_path
from langslice.planning.plan import save_plan
from langslice.restoration.main import _check_something_returns
from tests.structure.test_hidden_size import KEPT, SIZE, changed_after_writes
from tests.structure.test_structure import load, outputs_of
from tests.zoo import build

UNTIED = {"tie_word_embeddings": False}


def turned_plan(folder, seed=0, **cut):
    """A plan with a rotation at random."""
    plan = langslice.plan(folder, hidden_size=KEPT, **cut)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))[0][:, :KEPT]
    structure = replace(plan.structure, hidden=tuple(range(KEPT)), rotation=rotation.packed(basis))
    return replace(plan, structure=structure), basis


@pytest.mark.parametrize(
    ("model_type", "dtype", "cut"),
    [
        ("llama", "float32", {}),
        ("qwen3", "bfloat16", {"drop_layers": "1", "neurons_sparsity": 0.25, "heads_sparsity": 0.5, "uniform": True}),
        ("qwen3_moe", "float16", {}),
        ("qwen2", "float32", {}),
        ("phi3", "float32", {}),
    ],
)
def test_outputs_are_those_of_the_projected_source(model_type, dtype, cut, tmp_path):
    source = build(model_type, tmp_path / "source", dtype=dtype, **UNTIED)
    plan, _ = turned_plan(source, **cut)
    save_plan(plan, tmp_path / "plan.json")
    result = langslice.slice(source, tmp_path / "out", plan=tmp_path / "plan.json")
    outputs_of(result)
    assert f"{KEPT} rotated dimensions" in repr(result.plan)
    assert json.loads((tmp_path / "out/config.json").read_text())["hidden_size"] == KEPT
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert all(bool((one == 1).all()) for name, one in tensors.items() if name.endswith("layernorm.weight"))
    with pytest.raises(PlanError, match="the base's rows are not rotated"):
        _check_something_returns(result.plan, everything=False)


def test_by_lines_that_share_nothing_with_verification(tmp_path):
    source = build("llama", tmp_path / "source", **UNTIED)
    plan, basis = turned_plan(source)
    langslice.slice(source, tmp_path / "out", plan=plan)
    space = torch.from_numpy(basis @ basis.T).float()
    model = changed_after_writes(source, lambda output: output @ space)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected, found = model(ids).logits, load(tmp_path / "out")(ids).logits
    assert torch.allclose(expected, found, rtol=0, atol=1e-5 * expected.abs().max())


def test_the_weights_of_a_wrong_norm_are_never_written(tmp_path, monkeypatch):
    source = build("llama", tmp_path / "source", **UNTIED)
    plan, _ = turned_plan(source)
    right = rotation._turn

    def wrong(*given):
        turn = right(*given)
        return replace(turn, norm=turn.norm.replace("input_layernorm", "post_attention_layernorm"))

    monkeypatch.setattr(rotation, "_turn", wrong)
    with pytest.raises(VerificationError, match="last hidden states differ"):
        langslice.slice(source, tmp_path / "out", plan=plan)
    assert not (tmp_path / "out").exists()


def test_a_weight_that_changed_since_is_found(tmp_path):
    source = build("llama", tmp_path / "source", **UNTIED)
    langslice.slice(source, tmp_path / "out", plan=turned_plan(source)[0])
    tensors = load_file(tmp_path / "out/model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 1e-4
    save_file(tensors, tmp_path / "out/model.safetensors", {"format": "pt"})
    checks = {check.name: check for check in langslice.verify(source, tmp_path / "out").checks}
    assert not checks["bytes"].passed
    assert "model.layers.1.mlp.down_proj.weight: rows from 0 on" in checks["bytes"].examples[0]


def test_directions_of_text(tmp_path):
    """The packaged model with a head of its own, cut to three quarters: text chooses the directions."""
    source = tmp_path / "source"
    shutil.copytree(mini_model_path(), source)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    config = {**json.loads((source / "config.json").read_text()), "tie_word_embeddings": False}
    (source / "config.json").write_text(json.dumps(config))
    (tmp_path / "ko.txt").write_text("\n".join(heldout_text("ko")[:20]), encoding="utf-8")
    given = {"hidden_size": 144, "calibration": f"ko={tmp_path / 'ko.txt'}"}
    result = langslice.slice(source, tmp_path / "out", hidden_by="rotation", **given)
    outputs_of(result)
    card = (tmp_path / "out/README.md").read_text()
    assert "144 of 192 hidden dimensions, rotated first" in card
    assert "the source's, rotated and cut" in card
    with pytest.raises(langslice.LangsliceError, match="none was given"):
        langslice.plan(source, hidden_size=144, hidden_by="rotation")


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("gemma3_text", "stand behind the parts"),
        ("olmo2", "stand behind the parts"),
        ("bert", "take a mean away"),
        ("mt5", "what reads which norm"),
        ("llama", "folded into neither"),
    ],
)
def test_models_that_a_rotation_does_not_go_through(model_type, said, tmp_path):
    source = build(model_type, tmp_path / "source", **({"tie_word_embeddings": True} if model_type == "llama" else {}))
    with pytest.raises(PlanError, match=said) as caught:
        langslice.plan(source, hidden_size=KEPT, hidden_by="rotation", calibration="ko.txt")
    assert "activation" in caught.value.hint


def test_a_rotation_that_was_edited(tmp_path):
    source = build("llama", tmp_path / "source", **UNTIED)
    plan, basis = turned_plan(source)
    for text, said in (
        (rotation.packed(2 * basis), "orthonormal"),
        (rotation.packed(basis[:5]), "no matrix"),
        ("?", "no matrix"),
    ):
        with pytest.raises(PlanError, match=said):
            langslice.slice(
                source, tmp_path / "out", plan=replace(plan, structure=replace(plan.structure, rotation=text))
            )
