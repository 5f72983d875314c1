"""Magnitudes against the loaded model, overlap by hand, ablation, structured scores."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.demonstrations import Demonstration
from langslice.demonstrations.tokens import load_prompts
from langslice.errors import PlanError
from langslice.features import Magnitudes, ablate, measure_magnitudes, overlap, particular_dimensions, standing_out
from langslice.features.overlaps import largest, smallest

SETS = {
    "mt": [
        Demonstration("mt", ("the lamb", "and net"), "\n", answer=True),
        Demonstration("mt", ("a", "b"), "\n", answer=True),
    ],
    "fr": [Demonstration("fr", ("sing ted mend",))],
}


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_magnitudes_equal_those_of_the_loaded_model(zoo, model_type):
    import torch

    from langslice.model.transformers_classes import model_class

    folder = zoo(model_type)
    measured = measure_magnitudes(folder, SETS)
    model = model_class(folder).from_pretrained(folder).eval()
    prompts = load_prompts(folder, SETS, max_tokens=512)
    for place, condition in enumerate(SETS):
        total = 0
        own = [prompt for prompt in prompts if prompt.condition == condition]
        for prompt in own:
            with torch.no_grad():
                states = model(**prompt.inputs(), output_hidden_states=True).hidden_states
            # transformers gives the last one after the final norm.
            total = total + np.stack([state[0].double().square().sum(0).sqrt().numpy() for state in states[:-1]])
        assert np.allclose(measured.values[place, :-1], total / len(own), rtol=1e-5)
    assert measured.layers[0] == "embeddings" and len(measured.layers) == 4
    assert measured.prompts == (2, 1)


def test_overlap_by_hand():
    values = np.array([[[4.0, 3, 2, 1]], [[1.0, 2, 3, 4]], [[4.0, 1, 3, 2]]])
    measured = Magnitudes(("a", "b", "c"), ("embeddings",), values, (1, 1, 1))
    assert largest(values[0], 0.5).tolist() == [[True, True, False, False]]
    assert smallest(values[0], 0.25).tolist() == [[False, False, False, True]]
    found = overlap(measured, 0.5)[:, :, 0]
    assert found.tolist() == [[0, 0.5, 0.25], [0.5, 0, 0.25], [0.25, 0.25, 0]]
    assert particular_dimensions(measured, "a", ["b", "c"], 0.5).tolist() == [[False, True, False, False]]
    assert standing_out(measured, "a", ["c"], 1, 0.5).tolist() == [[False, True, False, False]]
    with pytest.raises(PlanError, match="no condition to compare with was given"):
        particular_dimensions(measured, "a", [], 0.5)
    with pytest.raises(PlanError, match=r"must lie between 0 and 0\.5, found 0\.0"):
        overlap(measured, 0.0)


def test_ablation_zeroes_what_it_says(zoo):
    measured = measure_magnitudes(zoo("llama"), SETS)
    everything = np.ones(measured.values.shape[1:], dtype=bool)
    rows = ablate(zoo("llama"), measured, SETS, "mt", everything, seeds=(0,))
    nothing = {row.condition: row for row in rows if row.zeroed == "nothing"}
    # With no hidden state left every token is as likely as any other.
    zeroed = {row.condition: row.loss for row in rows if row.zeroed == "particular"}
    assert zeroed["mt"] == pytest.approx(np.log(131), abs=1e-4) and nothing["mt"].loss != pytest.approx(
        np.log(131), abs=1e-2
    )
    assert nothing["mt"].answer_loss is not None and nothing["fr"].answer_loss is None
    assert {row.dimensions for row in rows if row.zeroed == "particular"} == {3 * 24}
    few = np.zeros_like(everything)
    few[1:, :4] = True
    again = ablate(zoo("llama"), measured, SETS, "mt", few, seeds=(0, 1))
    assert {row.dimensions for row in again if row.zeroed != "nothing"} == {12}
    assert len({row.loss for row in again if row.zeroed == "random" and row.condition == "mt"}) == 2


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "m2m_100", "mt5", "bloom"])
def test_structured_scores_sum_the_scores_of_columns(zoo, model_type):
    from langslice.model.checkpoint import open_checkpoint
    from langslice.sparsity.block_pass import walk
    from langslice.sparsity.skeleton import Skeleton
    from langslice.sparsity.structured import structured_scores
    from langslice.sparsity.weight_bytes import read_tensor

    folder = zoo(model_type)
    scores = structured_scores(folder, SETS["mt"])
    tensors = open_checkpoint(folder).tensors
    norms = {}
    prompts = load_prompts(folder, {"keep": SETS["mt"]}, max_tokens=512)
    for visit in walk(Skeleton(folder), prompts, watched=lambda block: block.linears):
        for linear in visit.block.linears:
            norms[linear.entry.name] = np.sqrt(visit.statistics.mean_squares("keep", linear))
    blocks = 3 if model_type in ("llama", "gpt2", "bloom") else 5
    assert len(scores.neurons) == blocks
    assert len(scores.heads) == (3 if blocks == 3 else 2 + 2 * 3)
    for kind in (scores.neurons, scores.heads):
        for name, found in kind.items():
            weight = read_tensor(tensors[name]).numpy()
            weight = weight.T if model_type == "gpt2" else weight
            columns = (np.abs(weight) * norms[name]).sum(axis=0)
            assert np.allclose(found, columns.reshape(len(found), -1).sum(axis=1), rtol=1e-5)
    assert {len(found) for found in scores.heads.values()} == {4}
