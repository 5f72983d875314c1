"""Rows read off classes: against the table where it has one, and on types that it lacks."""

from __future__ import annotations

import json
import re

import pytest
import transformers
from typer.testing import CliRunner

import langslice
from langslice.errors import PlanError, UnknownFamilyError, VerificationError
from langslice.model import families
from langslice.model.axes import VOCABULARY_AXES, Family, LiveRows, Rule, describe_tensor
from langslice.model.body import Body, Routing, StackFields
from langslice.model.derivation import derive_row
from langslice.planning.plan import load_plan, save_plan
from tests.families.tiny import build
from tests.zoo import FAMILIES, VOCABULARY

# Types without a row, for what each has of its own.
TYPES = {
    "mamba": "MambaForCausalLM",  # no attention
    "deepseek_v4": "DeepseekV4ForCausalLM",  # a table from tokens to experts
    "dory": "DoryForCausalLM",  # a scale for every token
    "mpnet": "MPNetForMaskedLM",  # a bias of the head
    "longt5": "LongT5ForConditionalGeneration",
}


def _vocabulary(family, name, shape):
    axes = describe_tensor(family, name, shape, frozenset({VOCABULARY})).axes or ()
    return [(dim, axis) for dim, axis in enumerate(axes) if axis in VOCABULARY_AXES]


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_derived_row_says_what_the_table_says(model_type, zoo):
    from safetensors import safe_open

    config = json.loads((zoo(model_type) / "config.json").read_text())
    if config["model_type"] not in families._BY_TYPE or not config.get("architectures"):
        pytest.skip("not a class of this transformers")
    derived, table = derive_row(config).family, families.family_of(config)
    with safe_open(zoo(model_type) / "model.safetensors", "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name, shape in shapes.items():
        assert _vocabulary(derived, name, shape) == _vocabulary(table, name, shape), name


def _pasted(row):
    """Both rows of a text, as the tables would have them."""
    names = {
        "Family": Family,
        "Rule": Rule,
        "LiveRows": LiveRows,
        "Body": Body,
        "StackFields": StackFields,
        "Routing": Routing,
    }
    _, family, body = re.split(r"^# model/.*$", row, flags=re.MULTILINE)
    return eval(family.strip(), names), eval(f"({body.strip()}\n)", names) or None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny random model by type, built once."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(model_type):
        found = root / model_type
        if model_type not in transformers.CONFIG_MAPPING:
            pytest.skip(f"transformers {transformers.__version__} has no model type `{model_type}`")
        return found if found.is_dir() else build(model_type, TYPES[model_type], found)

    return folder


@pytest.mark.parametrize("model_type", sorted(TYPES))
def test_a_type_without_a_row_is_sliced_and_proven(model_type, tiny, tmp_path):
    result = langslice.slice(tiny(model_type), tmp_path / "out", scripts="Hang")
    assert result.verification.passed
    outputs = next(check for check in result.verification.checks if check.name == "outputs")
    assert outputs.passed
    assert "kept tokens once each" in outputs.detail
    family, body = _pasted(result.plan.row)
    config = json.loads((tiny(model_type) / "config.json").read_text())
    assert family == families.family_of(config)
    assert body == derive_row(config).body
    # The same from the plan's file, and by `verify`.
    save_plan(result.plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json").row == result.plan.row
    assert langslice.verify(tiny(model_type), tmp_path / "out").passed


def test_a_plan_with_another_row_is_refused(tiny, tmp_path):
    plan = langslice.plan(tiny("mamba"), scripts="Hang")
    save_plan(plan, tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text().replace('\\"vocab\\", \\"hidden\\"', '\\"hidden\\", \\"vocab\\"', 1)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="the plan's `row` is not the row of `mamba` here"):
        langslice.slice(tiny("mamba"), tmp_path / "out", plan=tmp_path / "plan.json")


def test_the_proof_cannot_be_switched_off(tiny, tmp_path, monkeypatch):
    with pytest.raises(PlanError, match="the row of `mamba` was derived from its class"):
        langslice.slice(tiny("mamba"), tmp_path / "out", scripts="Hang", verify=False)
    monkeypatch.setattr("langslice.verification.outputs.lacking_memory", lambda *_, **__: "not run: no memory")
    with pytest.raises(VerificationError, match="no memory; the row of `mamba` was derived from its class"):
        langslice.slice(tiny("mamba"), tmp_path / "out", scripts="Hang")
    assert not (tmp_path / "out").exists()


def test_inspect_prints_the_row(tiny):
    from langslice.cli.app import app

    result = CliRunner().invoke(app, ["inspect", str(tiny("mamba")), "--row"])
    assert 'Rule("vocabulary", "embeddings", ("vocab", "hidden"))' in result.output
    assert 'StackFields("num_hidden_layers", "", "")' in result.output
    assert _pasted(result.output)[0] == families.family_of(json.loads((tiny("mamba") / "config.json").read_text()))
    listed = CliRunner().invoke(app, ["inspect", "mini", "--row"]).output
    assert '("llama","mistral",' in "".join(listed.split())


def test_a_type_that_transformers_lacks_is_refused_by_name():
    with pytest.raises(UnknownFamilyError, match=r"unknown model type `qwen9`.*qwen3"):
        families.family_of({"model_type": "qwen9"})


# Cuts that each need something of their own: state-space layers, hybrids with lists, experts fused and alternating.
PRUNED = {
    "mamba": {"drop_layers": "1"},
    "arcee": {
        "drop_layers": "2",
        "drop_heads": [f"{layer}:0-1" for layer in (0, 1, 3)],
        "drop_neurons": [f"{layer}:0-7" for layer in (0, 1, 3)],
    },
    "gpt_oss": {"drop_layers": "0-1", "drop_heads": ["2:0-1", "3:2-3"], "drop_neurons": ["2:0-7", "3:8-15"]},
    "jamba": {"drop_layers": "0-1", "drop_neurons": ["2:0-7", "3:0-7"]},
    "longt5": {"drop_layers": ["encoder.0", "decoder.1"]},
    # Counted by a list; sized by a map from numbers of layers, with parts of tables for each; in several lists side by side.
    "nemotron_h": {"drop_layers": "1"},
    "gemma4_text": {"drop_layers": "1", "scripts": "Hang"},
    "xlm": {"drop_heads": [f"{layer}:1" for layer in range(4)]},
    # Experts in tensors that are not called so.
    "granitemoe": {"drop_neurons": [f"{layer}:0-7" for layer in range(4)]},
    # Heads of the hidden size, of which several share a key-value head.
    "stablelm": {"drop_heads": [f"{layer}:0-1" for layer in range(4)]},
}
CLASSES = {
    **TYPES,
    "arcee": "ArceeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "jamba": "JambaForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "gemma4_text": "Gemma4ForCausalLM",
    "xlm": "XLMWithLMHeadModel",
    "stablelm": "StableLmForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM",
}
TIED = {"xlm", "stablelm"}  # the size of a head to their number: written with per-layer sizes


@pytest.mark.parametrize("model_type", sorted(PRUNED))
def test_layers_heads_and_neurons_of_a_type_without_a_row(model_type, tmp_path):
    source = build(model_type, CLASSES[model_type], tmp_path / "source")
    result = langslice.slice(source, tmp_path / "out", **PRUNED[model_type])
    assert result.verification.passed
    assert next(check.passed for check in result.verification.checks if check.name == "outputs")
    assert result.plan.structure.style == ("sliced" if model_type in TIED else "stock")
    assert "Body(" in result.plan.row


def test_what_was_not_found_is_refused_with_the_reason(tiny, tmp_path):
    with pytest.raises(PlanError, match="the heads of a `mamba` model could not be read off its class: it has no"):
        langslice.slice(tiny("mamba"), tmp_path / "out", drop_heads="0:1")


def test_what_stands_in_the_configuration_by_layer_follows_the_layers(tmp_path):
    source = build("gemma4_text", CLASSES["gemma4_text"], tmp_path / "source")
    langslice.slice(source, tmp_path / "out", drop_layers="1")
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out"))
    assert list(before["per_layer_config"]) == ["3"]
    assert after["per_layer_config"] == {"2": before["per_layer_config"]["3"]}
    assert after["layer_types"] == [before["layer_types"][layer] for layer in (0, 2, 3)]
    with pytest.raises(PlanError, match="each of its layers stands in several lists"):
        langslice.slice(build("xlm", CLASSES["xlm"], tmp_path / "xlm"), tmp_path / "out2", drop_layers="1")


def test_a_body_that_gives_logits_is_compared_in_the_kept_columns(tmp_path):
    source = build("fsmt", "FSMTForConditionalGeneration", tmp_path / "source")
    result = langslice.slice(source, tmp_path / "out", scripts="Hang")
    assert next(check.passed for check in result.verification.checks if check.name == "outputs")


def test_a_hybrid_has_heads_where_some_layer_has(tmp_path):
    config = json.loads((build("nemotron_h", CLASSES["nemotron_h"], tmp_path, tokens=131) / "config.json").read_text())
    assert not [why for why in derive_row(config).body.refused.values() if why.startswith("it has no")]


def test_a_table_by_layer_that_outputs_do_not_show_keeps_the_layers(tmp_path):
    source = build("esm", "EsmForMaskedLM", tmp_path / "source", tokens=131)
    with pytest.raises(PlanError, match=r"with their number esm\.contact_head\.regression\.weight changes, too"):
        langslice.slice(source, tmp_path / "out", drop_layers="1")


def test_positions_behind_the_padding_token_are_read_off_the_class(tmp_path):
    from langslice.model.positions import longest_text

    config = build("roberta-prelayernorm", "RobertaPreLayerNormForMaskedLM", tmp_path, tokens=131)
    config = json.loads((config / "config.json").read_text())
    assert derive_row(config).family.offset_positions
    assert longest_text(config) == config["max_position_embeddings"] - config["pad_token_id"] - 1
    assert not derive_row(
        json.loads((build("xlm", CLASSES["xlm"], tmp_path / "xlm") / "config.json").read_text())
    ).family.offset_positions
