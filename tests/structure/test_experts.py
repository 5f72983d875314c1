"""Experts as an axis: what is written computes what the source does whose routers are closed to the experts that are gone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import langslice
import langslice.structure.edits as edits
from langslice.errors import LanguageError, PlanError, ScoreError, VerificationError
from langslice.mini import heldout_text
from langslice.model.anatomy import read_anatomy
from langslice.model.axes import describe_tensor
from langslice.model.checkpoint import open_checkpoint
from langslice.model.families import family_of
from langslice.planning.plan import load_plan, save_plan
from langslice.planning.source import Source
from langslice.restoration.main import restore
from langslice.scoring import ScoreSettings, compute
from langslice.scoring.expert_selection import experts_to_drop
from langslice.slicing.inspect import inspect_model
from langslice.structure.clients import client_note
from langslice.verification import outputs, router_ties
from tests.families.tiny import VOCABULARY, build

ROWS, EXPERTS = 131, 6
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
# Experts of their own on disk, with a row and without; in one tensor with biases; in groups, with a bias
# of scores.
TYPES = {
    "qwen3_moe": ("Qwen3MoeForCausalLM", {}),
    "gpt_oss": ("GptOssForCausalLM", {}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {"n_group": 2, "topk_group": 1}),
}
# Different experts of each layer; of the two groups of three, one each.
GONE = {0: (0, 4), 1: (2, 3), 2: (1, 5), 3: (0, 3)}


def save(model_type: str, folder: Path, tokens: int = ROWS, **more: object) -> Path:
    """A tiny random model whose routers' biases of scores are not zero."""
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no model type `{model_type}`")
    name, changes = TYPES[model_type]
    fields = transformers.CONFIG_MAPPING[model_type]().to_dict()
    count = next(one for one in COUNTS if one in fields)
    build(model_type, name, folder, tokens=tokens, **{count: EXPERTS, **changes, **more})
    if model_type == "qwen3_moe":  # as published files have it, whatever this version writes
        config = json.loads((folder / "config.json").read_text())
        config["num_experts"] = config.pop(count)
        (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for key, value in tensors.items():
        if "correction_bias" in key:
            tensors[key] = 0.2 * torch.rand(value.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def closed(model, gone: dict[int, tuple[int, ...]], monkeypatch) -> None:
    """Close experts to their routers, by lines that share nothing with verification."""
    routers = {}
    for name, one in (*model.named_parameters(), *model.named_buffers()):
        layer = int(name.split("layers.")[1].split(".")[0]) if "layers." in name else -1
        if "correction_bias" in name:
            one.data[list(gone[layer])] = float("-inf")
        elif one.ndim == 2 and len(one) == EXPERTS and "experts" not in name:
            routers[one.data_ptr()] = list(gone.get(layer, ()))
    assert len(routers) == len(gone)
    plain = torch.nn.functional.linear

    def linear(states, weight, bias=None):
        product = plain(states, weight, bias)
        if weight.data_ptr() in routers:
            product[..., routers[weight.data_ptr()]] = float("-inf")
        return product

    monkeypatch.setattr(torch.nn.functional, "linear", linear)


def logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits


def listed(gone: dict[int, tuple[int, ...]]) -> list[str]:
    return [f"{layer}:{','.join(map(str, numbers))}" for layer, numbers in gone.items()]


@pytest.mark.parametrize("model_type", sorted(TYPES))
def test_a_slice_computes_what_its_source_does_with_closed_experts(model_type, tmp_path, monkeypatch):
    source = save(model_type, tmp_path / "source")
    gone = {layer: GONE[layer] for layer in range(1 if model_type == "deepseek_v3" else 0, 4)}
    result = langslice.slice(source, tmp_path / "out", drop_experts=listed(gone))
    assert next(check.passed for check in result.verification.checks if check.name == "outputs")
    assert result.plan.structure.experts["layers"][2] == (0, 2, 3, 4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {config[name] for name in COUNTS if name in config} == {EXPERTS - 2}
    ids = np.random.default_rng(2).integers(0, ROWS, 40).tolist()
    found = logits(load(tmp_path / "out"), ids)
    model = load(source)
    whole = logits(model, ids)
    closed(model, gone, monkeypatch)
    expected = logits(model, ids)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, whole, atol=1e-2)


@pytest.mark.parametrize("renormalised", [True, False])
def test_experts_that_were_not_chosen_are_missed_only_where_weights_are_shares_of_all(tmp_path, renormalised):
    source = save("qwen3_moe", tmp_path / "source", norm_topk_prob=renormalised)
    model, ids = load(source), [7, 8]  # two tokens choose at most four experts of a layer
    with torch.no_grad():
        routed = model.model(torch.tensor([ids]), output_router_logits=True).router_logits
    chosen = {layer: set(scores.topk(2).indices.flatten().tolist()) for layer, scores in enumerate(routed)}
    gone = {layer: tuple(sorted(set(range(EXPERTS)) - used))[:2] for layer, used in chosen.items()}
    langslice.slice(source, tmp_path / "out", drop_experts=listed(gone))
    same = torch.allclose(logits(load(tmp_path / "out"), ids), logits(model, ids), atol=1e-5)
    assert same == renormalised


def test_with_layers_heads_and_neurons_and_back(tmp_path):
    source = save("qwen3_moe", tmp_path / "source", VOCABULARY)
    gone = {layer: GONE[layer] for layer in (0, 2, 3)}
    result = langslice.slice(
        source, tmp_path / "out", drop_experts=listed(gone), drop_layers="1", drop_neurons="0,2-3:0-7",
        drop_heads=["0:0-1", "2:0-1", "3:2-3"],
    )  # fmt: skip
    assert next(check.passed for check in result.verification.checks if check.name == "outputs")
    assert "4 experts in 3 layers of layers" in repr(result.plan)
    told = client_note(read_anatomy(open_checkpoint(source)), result.plan.structure)
    assert "not known of vLLM, llama.cpp, CTranslate2" in told  # they load fewer heads, and nobody tried fewer experts
    assert "16 neurons in 3 layers of layers" in repr(result.plan)
    name = "model.layers.1.mlp.experts.1.up_proj.weight"  # layer 2, expert 2
    assert result.plan.tensors["model.layers.2.mlp.experts.2.up_proj.weight"].name == name
    save_plan(result.plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json").structure == result.plan.structure
    assert langslice.verify(source, tmp_path / "out").passed
    assert "| experts | 24 | 12 |" in (tmp_path / "out" / "README.md").read_text()
    restored = restore(tmp_path / "out", tmp_path / "back", base=source, everything=True)
    assert restored.verification.passed
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_verification_sees_a_wrong_expert(tmp_path, monkeypatch):
    source = save("gpt_oss", tmp_path / "source")
    right = edits._indices

    def one_further(anatomy, kept, name, place, shape):
        found = right(anatomy, kept, name, place, shape)
        if name.endswith("router.weight"):
            found[0] = np.roll(found[0], 1)
        return found

    monkeypatch.setattr(edits, "_indices", one_further)
    with pytest.raises(VerificationError, match="outputs"):
        langslice.slice(source, tmp_path / "out", drop_experts=listed(GONE))
    assert not (tmp_path / "out").exists()


def test_a_router_that_cannot_be_closed_is_no_proof(tmp_path, monkeypatch):
    source = save("gpt_oss", tmp_path / "source")
    monkeypatch.setattr("langslice.scoring.routing._PRODUCTS", frozenset())
    with pytest.raises(
        PlanError, match="the router of layers layer 0 does not multiply its matrix in a way that is known"
    ):
        langslice.slice(source, tmp_path / "out", drop_experts=listed(GONE))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_expressed_is_refused_by_name(tmp_path):
    source = save("deepseek_v3", tmp_path / "source")
    cases = {
        r"experts of a layer into 2 groups of 3.* layer 1 would stay 0: 2, 1: 3": {"drop_experts": "1-3:1"},
        r"2 groups would be left, with 1 of the experts each, and a token runs": {"drop_experts": "1-3:1,2,4,5"},
        r"numbers of experts \(4 in layer 2, 6 in layer 3\), and `n_routed_experts`": {"drop_experts": "1-2:0,3"},
        r"expert 0 does not exist\n.*layer 0 has no experts": {"drop_experts": "0:0"},
        r"expert 6 does not exist\n.*layer 1 has experts 0 to 5": {"drop_experts": "1-3:6"},
        r"cannot be masked by zeros": {"drop_experts": "1-3:0,3", "output_style": "masked"},
        r"each say how many experts": {"drop_experts": "1-3:0,3", "experts_sparsity": 0.5},
        r"names layer 1 of layers, which is dropped": {"drop_experts": "1-3:0,3", "drop_layers": "1"},
        r"keeps what serves `languages`, but none are given": {"language_experts": True},
    }
    for message, choice in cases.items():
        with pytest.raises(PlanError, match=message):
            langslice.plan(source, **choice)
    whole = langslice.slice(source, tmp_path / "out", drop_experts="1-3:0-2")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["n_group"] == 1
    assert whole.verification.passed
    # A class that adds up the two best of a group cannot run with one.
    wide = save("deepseek_v3", tmp_path / "wide", topk_group=2)
    with pytest.raises(PlanError, match="2 groups would be left, with 1 of the experts each"):
        langslice.plan(wide, drop_experts="1-3:1,2,4,5")
    with pytest.raises(PlanError, match="this model has no experts"):
        langslice.plan("mini", drop_experts="0:1")
    other = save("gpt_oss", tmp_path / "other")
    with pytest.raises(PlanError, match="of the experts of a layer 1 would be left, and a token runs through 2"):
        langslice.plan(other, drop_experts="0-3:1-5")


def test_the_router_of_gemma_4_runs_along_its_experts():
    family = family_of({"model_type": "gemma4_text"})
    shapes = {"router.proj.weight": (6, 32), "router.per_expert_scale": (6,), "router.scale": (32,)}
    said = {
        name: describe_tensor(family, f"model.layers.0.{name}", shape, frozenset()).axes
        for name, shape in shapes.items()
    }
    assert list(said.values()) == [("experts", "hidden"), ("experts",), ("hidden",)]


def test_inspect_says_what_an_expert_is_worth(tmp_path):
    units = inspect_model(Source(open_checkpoint(save("gpt_oss", tmp_path / "source")), needs_tokenizer=False)).units
    expert = next(unit for unit in units if unit.name == "expert")
    # Rows of gate and up, of down, their biases, and of the router; a token is multiplied with as many experts as before.
    assert (expert.count, expert.parameters) == (24, 2 * 56 * 32 + 2 * 56 + 56 * 32 + 32 + 32 + 1)
    assert expert.flops == 2 * 32


def test_routed_shares_are_those_of_the_routers_own_logits_and_choose(tmp_path):
    source = save("qwen3_moe", tmp_path / "source", VOCABULARY)
    checkpoint = open_checkpoint(source)
    lines = {language: heldout_text(language)[:2] for language in ("en", "fr", "ko")}
    settings = ScoreSettings(seeds=(0,), samples=1)
    scores = compute(checkpoint, "experts", "routed", lines, settings=settings)
    by_layer = scores.values("en")["layers"]
    assert all(row.sum() == pytest.approx(2) for row in by_layer.values())
    from langslice.scoring.batches import make_batches
    from langslice.scoring.model_runs import open_running
    from langslice.scoring.texts import sample_lines

    running = open_running(checkpoint, read_anatomy(checkpoint), whole=True)
    (batch,) = make_batches(running.reader, sample_lines(lines["en"], 0, 1), 0, predict=False)
    with torch.no_grad():
        routed = running.model.model(**batch.inputs, output_router_logits=True).router_logits
    for layer, row in enumerate(routed):
        counted = torch.bincount(row.topk(2).indices.flatten(), minlength=EXPERTS) / len(row)
        assert by_layer[layer] == pytest.approx(counted.numpy())
    anatomy = read_anatomy(checkpoint)
    gone = experts_to_drop(scores, anatomy, 0.34, ("en", "ko"))["layers"]
    highest = np.maximum(scores.values("en")["layers"][1], scores.values("ko")["layers"][1])
    assert gone[1] == tuple(sorted(np.argsort(highest, kind="stable")[:2].tolist()))
    with pytest.raises(LanguageError, match="no scores for `zh`"):
        experts_to_drop(scores, anatomy, 0.34, ("zh",))
    with pytest.raises(PlanError, match=r"0\.1 of 6 experts is less than one"):
        experts_to_drop(scores, anatomy, 0.1)
    with pytest.raises(PlanError, match="leaves 1, and 2 are needed to choose from"):
        experts_to_drop(scores, anatomy, 0.9)
    with pytest.raises(ScoreError, match="no experts of this `llama` model can be scored"):
        compute(open_checkpoint("mini"), "experts", "routed", lines)


def test_ties_are_followed_by_the_numbers_of_the_source(tmp_path):
    """Through a layer that is gone, an expert that is gone, and layers whose heads differ in number."""
    source = save("qwen3_moe", tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, one in tensors.items():
        if one.ndim == 2 and len(one) == EXPERTS and "experts" not in name:
            tensors[name][5] = one[2] * (1 + 1e-7 * torch.randn(one[2].shape, generator=generator))
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    result = langslice.slice(
        source, tmp_path / "out", drop_layers="0", drop_heads="2:0-1", drop_experts="1-3:4", output_style="sliced"
    )
    said = next(check.detail for check in result.verification.checks if check.name == "outputs")
    assert result.verification.passed
    assert "choices of routers" in said


@pytest.mark.parametrize("model_type", sorted(TYPES))
def test_a_tie_of_routers_is_no_difference_and_a_wrong_router_is(model_type, tmp_path, monkeypatch):
    """Two experts with the same row: rounding, which the last bits of one row stand for, decides which of them is chosen."""
    source = save(model_type, tmp_path / "source", **({"n_group": 1} if model_type == "deepseek_v3" else {}))
    tensors = load_file(source / "model.safetensors")
    tied = [name for name, one in tensors.items() if len(one) == EXPERTS and one.ndim < 3 and "experts" not in name]
    for name in tied:
        tensors[name][5] = tensors[name][2]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    unmodified = outputs.load_unmodified

    def rounded(factor: float):
        def loaded(folder: Path, *given: object, **options: object):
            model = unmodified(folder, *given, **options)
            for name, one in model.named_parameters():
                if one.ndim == 2 and len(one) == EXPERTS - 2 and "experts" not in name:
                    one.data[3] *= factor
            return model

        monkeypatch.setattr(outputs, "load_unmodified", loaded)

    choice = {"drop_experts": [f"{layer}:0,4" for layer in range(model_type == "deepseek_v3", 4)]}
    rounded(1 + 3e-7)
    result = langslice.slice(source, tmp_path / "out", **choice)
    said = next(check.detail for check in result.verification.checks if check.name == "outputs")
    assert int(re.search(r"; (\d+) choices of routers between scores that are equal", said)[1]) > 9
    rounded(1.01)
    with pytest.raises(VerificationError, match="last hidden states of the masked source differ"):
        langslice.slice(source, tmp_path / "wrong", **choice)
    rounded(1 + 3e-7)
    monkeypatch.setattr(router_ties.RouterTies, "following", lambda *_: None)
    with pytest.raises(VerificationError, match="last hidden states of the masked source differ"):
        langslice.slice(source, tmp_path / "alone", **choice)
    assert not (tmp_path / "wrong").exists()


def test_rows_of_a_router_behind_its_experts_stay(tmp_path):
    """A token may be sent to none of them, or to shared ones, for which the router has rows of its own."""
    if "zaya" not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no model type `zaya`")
    source = build("zaya", "ZayaForCausalLM", tmp_path / "source")
    assert langslice.slice(source, tmp_path / "out", drop_experts="0-3:1").verification.passed
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    for leaf in ("router_mlp.out_proj.weight", "balancing_biases"):
        name = f"model.layers.2.mlp.gate.{leaf}"
        assert len(before[name]) == 5 and torch.equal(after[name], before[name][[0, 2, 3, 4]])
    restore(tmp_path / "out", tmp_path / "whole", base=source, everything=True)
    assert all(torch.equal(one, before[name]) for name, one in load_file(tmp_path / "whole/model.safetensors").items())
