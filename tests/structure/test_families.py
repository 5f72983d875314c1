"""Layers, heads and neurons of every family: a slice on disk against the source, masked and skipped in memory."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from langslice.errors import PlanError
from langslice.model import layer_fields as bodies
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import open_checkpoint
from langslice.model.transformers_classes import loading_report
from langslice.planning.layers import choose_structure
from langslice.planning.plan import SlicePlan
from langslice.structure.config_files import restructured
from langslice.structure.edits import layer_edits
from langslice.structure.final_edits import finish_structure
from langslice.verification.outputs import compare_outputs
from langslice.writing.shards import TensorEdit, write_shards
from tests.zoo import FAMILIES, UNEVEN_LAYERS, VOCABULARY, lacks

COVERED = sorted(set(bodies._BY_TYPE) & set(FAMILIES))
NAMED = [
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "deberta-v2",
    "modernbert",
    "albert",
    "t5",
    "mt5",
    "umt5",
    "bart",
    "mbart",
    "m2m_100",
    "marian",
    "xglm",
    "bloom",
    "gpt2",
    "opt",
    "gpt_neox",
    "falcon",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "gemma3",
    "cohere",
    "cohere2",
    "phi",
    "phi3",
    "granite",
    "smollm3",
    "olmo2",
    "whisper",
]
# Why heads of different numbers, or of any number, are refused.
RENAMED = dict.fromkeys(("gte", "jina_embeddings_v3", "nomic_bert"), "other names as it loads them")
SAME_HEADS = {"phi3": "splits the fused", "gemma3": "wrapper", **RENAMED}
UNEVEN_NEURONS = {"gemma3": "wrapper", "qwen3_moe": "one tensor", **RENAMED}


def cut(folder, out, **choice):
    """What `slice` does to weights and config.json, without a tokenizer; returns the structure and both checks."""
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint)
    kept = choose_structure(checkpoint, anatomy, choice)
    edits = {name: TensorEdit("keep") for name in checkpoint.shapes} | layer_edits(anatomy, kept, checkpoint.shapes)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    write_shards(checkpoint, edits, out)
    config = restructured(checkpoint, anatomy, kept, "config.json", json.loads((folder / "config.json").read_text()))
    (out / "config.json").write_text(json.dumps(config))
    finish_structure(checkpoint, anatomy, kept, out)
    sliced = open_checkpoint(out)
    before, after = loading_report(checkpoint), loading_report(sliced)
    for kind in ("missing", "unexpected", "mismatched"):
        assert after[kind] <= before[kind], (kind, after[kind] - before[kind])
    rows = np.arange(VOCABULARY)
    plan = SlicePlan("", None, "", "", VOCABULARY, rows, (), (), {}, structure=kept)
    check = compare_outputs(checkpoint, sliced, plan, [])
    if kept.style == "sliced" and lacks(config["model_type"], UNEVEN_LAYERS):
        assert check.passed is False
        assert check.examples[-1].endswith("by config.json alone; transformers 5 does not")
    else:
        assert check.passed, check
    return kept, check


def whole_group(heads, number):
    """The query heads that share a key-value head; one head where all share it, or none do."""
    if heads.key_value == 1:
        return str(number % heads.query)
    first = number % heads.key_value * heads.group
    return ",".join(str(head) for head in range(first, first + heads.group))


def even_cut(anatomy, model_type):
    """The same number in every layer, other ones in each where unmodified code allows that."""
    same = model_type in ("t5", "mt5")
    heads, neurons = [], []
    for place, rows in anatomy.heads.items():
        heads += [f"{place}.{layer}:{whole_group(found, 0 if same else layer)}" for layer, found in rows.items()]
    for stack, widths in anatomy.neurons.items():
        neurons += [f"{stack}.{layer}:{layer}-{layer + 3}" for layer in widths]
    return {"drop_heads": heads, "drop_neurons": neurons}


def uneven_cut(anatomy):
    """Something of one layer of each attention and stack."""
    heads = [f"{place}.1:{whole_group(rows[1], 1)}" for place, rows in anatomy.heads.items()]
    return {"drop_heads": heads, "drop_neurons": [f"{stack}.1:2-8" for stack in anatomy.neurons]}


def test_every_named_family_has_a_row_and_a_tiny_model():
    assert set(NAMED) <= set(COVERED)


@pytest.mark.parametrize("model_type", [name for name in COVERED if name != "albert"])
def test_layers(model_type, zoo, tmp_path):
    folder = zoo(model_type)
    anatomy = read_anatomy(open_checkpoint(folder))
    number = 1 if anatomy.body.first_layer else 0
    if anatomy.body.alternates and "layer_types" not in anatomy.config:
        with pytest.raises(PlanError, match="derives it from a layer's place"):  # an early version of transformers
            cut(folder, tmp_path / "out", drop_layers=str(number))
        number = anatomy.layers["layers"] - 1
    kept, _ = cut(folder, tmp_path / "out", drop_layers=[f"{stack}.{number}" for stack in anatomy.layers])
    assert kept.style == "stock"
    assert {len(stay) + 1 for stay in kept.layers.values()} == set(anatomy.layers.values())


@pytest.mark.parametrize("model_type", COVERED)
def test_the_same_number_in_every_layer(model_type, zoo, tmp_path):
    folder = zoo(model_type)
    anatomy = read_anatomy(open_checkpoint(folder))
    choice = even_cut(anatomy, model_type)
    if anatomy.body.norm_all:
        with pytest.raises(PlanError, match="a norm spans"):
            choose_structure(open_checkpoint(folder), anatomy, choice)
        choice["drop_heads"] = []
    kept, _ = cut(folder, tmp_path / "out", **choice)
    stock = bool(anatomy.body.head_size) or not choice["drop_heads"]
    assert kept.style == ("stock" if stock else "sliced")


@pytest.mark.parametrize("model_type", COVERED)
def test_another_number_in_one_layer(model_type, zoo, tmp_path):
    folder = zoo(model_type)
    anatomy = read_anatomy(open_checkpoint(folder))
    choice = uneven_cut(anatomy) if model_type != "albert" else {"drop_heads": "0:1", "drop_neurons": "0:2-8"}
    for refused, entry in ((SAME_HEADS, "drop_heads"), (UNEVEN_NEURONS, "drop_neurons")):
        if model_type in refused:
            with pytest.raises(PlanError, match=refused[model_type]):
                choose_structure(open_checkpoint(folder), anatomy, {entry: choice[entry]})
            choice[entry] = []
    if anatomy.body.norm_all:
        choice["drop_heads"] = []
    if any(choice.values()):
        kept, _ = cut(folder, tmp_path / "out", **choice)
        assert kept.style == "sliced"


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "t5", "olmo2", "qwen3_moe"])
def test_masked(model_type, zoo, tmp_path):
    folder = zoo(model_type)
    anatomy = read_anatomy(open_checkpoint(folder))
    kept, check = cut(folder, tmp_path / "out", output_style="masked", **uneven_cut(anatomy))
    assert kept.style == "masked"
    assert "differ by 0, kept logits by 0e+00" in check.detail


@pytest.mark.parametrize("model_type", [row.model_types[0] for row in bodies.BODIES if row.model_types[0] in FAMILIES])
def test_without_its_row_a_family_is_read_off_its_class(model_type, zoo, monkeypatch):
    checkpoint = open_checkpoint(zoo(model_type))
    table = read_anatomy(checkpoint)
    monkeypatch.delitem(bodies._BY_TYPE, model_type)
    if model_type == "albert":  # one set of weights serves all layers
        with pytest.raises(PlanError, match="could not be read off its class"):
            read_anatomy(checkpoint)
        return
    derived = read_anatomy(checkpoint)
    assert derived.layers == table.layers
    assert derived.heads == ({} if "heads" in derived.body.refused else table.heads)
    if "neurons" not in derived.body.refused:
        assert derived.neurons == table.neurons
    for kind, why in derived.body.refused.items():
        assert why, kind
