"""Text models inside of others: what is compared of them, and ids that are none."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

import langslice
from langslice.errors import CheckpointError
from langslice.model.axes import Family, describe_tensor
from langslice.model.derived_rules import rules_for
from langslice.model.token_id_fields import IdMap, find_id_fields, renumber
from langslice.model.transformers_classes import model_class
from tests.families import apart as processes
from tests.families.apart import ApartError, apart
from tests.families.tiny import build


def test_the_pooled_output_is_compared_at_the_id_that_ends_a_text(tmp_path):
    source = build("clip_text_model", "CLIPTextModel", tmp_path / "source")
    out = tmp_path / "out"
    assert langslice.slice(source, out, scripts="Hang").verification.passed
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"eos_token_id": config["eos_token_id"] + 1}))
    checks = {check.name: check for check in langslice.verify(source, out).checks}
    assert checks["outputs"].passed is False


@pytest.mark.parametrize(("model_type", "end"), [("clip_text_model", 2), ("bert", 1)])
def test_an_end_of_2_is_no_id_where_the_highest_id_ends_a_text(model_type, end):
    config = {"text_config": {"model_type": model_type, "eos_token_id": 2, "bos_token_id": 0, "vocab_size": 4}}
    ids = IdMap(np.array([0, -1, 1, 2]), 3)
    assert renumber(config, ids, file="config.json")["text_config"] == {
        "model_type": model_type,
        "eos_token_id": end,
        "bos_token_id": 0,
        "vocab_size": 3,
    }
    named = {one for found in find_id_fields(config, file="config.json", rows=4) for one in found.ids}
    assert named == ({0} if end == 2 else {0, 2})


def test_a_name_that_is_the_end_of_another_has_a_rule():
    """The layers of Cosmos 3 Edge are called one way on disk and another in memory."""
    shapes = {"layers.0.mix.lin.weight": (56, 32), "visual.layers.0.mix.lin.weight": (56, 32)}
    axes = {"layers.0.mix.lin.weight": {0: "neurons"}}
    rules = rules_for(Family(("some",), ()), shapes, axes, frozenset(axes), 131)
    said = {
        name: describe_tensor(Family(("some",), rules), name, shape, frozenset({131})).axes
        for name, shape in shapes.items()
    }
    assert said == {"layers.0.mix.lin.weight": ("neurons", "hidden"), "visual.layers.0.mix.lin.weight": None}


def test_a_sweep_outlives_its_processes(monkeypatch):
    monkeypatch.setattr(processes, "WARM", [])
    assert apart(sum, [1, 2]) == 3
    with pytest.raises(ApartError, match="its process ended with SIGABRT"):
        apart(os.abort)
    with pytest.raises(ApartError, match=r"no result within 0\.5 s"):
        apart(time.sleep, 60, seconds=0.5)
    with pytest.raises(MemoryError):
        apart(bytearray, 1 << 30, memory=1 << 29)
    with pytest.raises(ValueError, match="invalid literal"):
        apart(int, "x")


def test_a_configuration_that_its_class_does_not_take_is_refused_by_name(tmp_path):
    """What validators raise is no ValueError, and ended the job in a traceback."""
    fields = {"model_type": "gemma2", "num_hidden_layers": 3, "layer_types": ["full_attention"]}
    (tmp_path / "config.json").write_text(json.dumps({**fields, "architectures": ["Gemma2ForCausalLM"]}))
    with pytest.raises(CheckpointError, match=r"cannot read its config\.json.*num_hidden_layers"):
        model_class(tmp_path)


def test_positions_for_each_second_of_sound_are_no_ids():
    config = {"thinker_config": {"position_id_per_seconds": 25}}
    assert find_id_fields(config, file="config.json", rows=9) == []
