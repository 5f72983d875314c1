"""What a slice costs, and what the random control next to it costs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from langslice.errors import CorpusError
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import open_checkpoint
from langslice.scoring.cost import pruning_costs
from langslice.scoring.selection import random_control

pytestmark = pytest.mark.usefixtures("one_thread")
KO = ["가감값 갔강", "각간 갈", "갈 감갔 가각강", "값 각"]
EN = ["the sting and letter", "list the nest", "same tale", "the salt"]


def test_a_dead_head_costs_nothing_and_its_control_something(zoo, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "dead"
    shutil.copytree(zoo("mistral"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"][:, 20:30] = 0
    weights["model.layers.2.mlp.down_proj.weight"][:, 7] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    cut = {"heads": {"layers.self": {1: (2,)}}, "neurons": {"layers": {2: (7,)}}}
    costs = pruning_costs(open_checkpoint(folder), {"ko": KO, "en": EN}, **cut, seeds=(0, 1, 2, 3))
    assert [cost.language for cost in costs] == ["ko", "en"]
    for cost in costs:
        assert cost.whole > 0
        assert cost.chosen == pytest.approx(0, abs=1e-6)
        assert cost.spread > 1e-5


def test_costs_equal_those_of_weights_set_to_zero(zoo):
    import torch

    from langslice.scoring.batches import make_batches
    from langslice.scoring.model_runs import open_running
    from langslice.scoring.texts import sample_lines

    checkpoint = open_checkpoint(zoo("bart"))
    anatomy = read_anatomy(checkpoint)
    heads = {"decoder.cross": {1: (0, 3)}}
    (cost,) = pruning_costs(checkpoint, {"": EN}, heads=heads, seeds=(5,))
    assert np.isnan(cost.spread)
    for cut, rise in ((heads, cost.chosen), (random_control(heads, anatomy, 5), cost.control)):
        running = open_running(checkpoint, anatomy, whole=True)
        batches = make_batches(running.reader, sample_lines(EN, 0, 64), 0, predict=True)
        assert running.mean_loss(batches) == pytest.approx(cost.whole, abs=1e-6)
        with torch.no_grad():
            for head in cut["decoder.cross"][1]:
                running.model.model.decoder.layers[1].encoder_attn.out_proj.weight[:, 6 * head : 6 * head + 6] = 0
        assert running.mean_loss(batches) - cost.whole == pytest.approx(rise, abs=1e-6)


def test_costs_need_text(zoo):
    with pytest.raises(CorpusError, match="this method reads text, and none was given"):
        pruning_costs(open_checkpoint(zoo("mistral")), (), heads={"layers.self": {0: (1,)}})
