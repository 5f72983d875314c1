"""A layer that is skipped passes its input on, and computes only where later layers need what else it gives."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("form", "computed"), [("states", 1), ("alone", 1), ("with a bias", 2)])
def test_a_skipped_layer_passes_its_input_on(form, computed):
    import torch

    from langslice.scoring.model_runs import hooked, skipping_layers
    from langslice.scoring.sites import Sites

    class Layer(torch.nn.Module):
        calls = 0

        def forward(self, hidden_states):
            self.calls += 1
            states = hidden_states * 2
            return {"states": states, "alone": (states,), "with a bias": (states, self.calls)}[form]

    layer, states = Layer(), torch.ones(1, 2, 3)
    given = (lambda output: output) if form == "states" else (lambda output: output[0])
    with hooked(skipping_layers(Sites({"layers": {0: layer}}, {}, {}, {}), {"layers": [0]})):
        outputs = [layer(states), layer(hidden_states=states)]
    assert all(torch.equal(given(output), states) for output in outputs)
    assert layer.calls == computed
    assert torch.equal(given(layer(states)), 2 * states)
    if form == "with a bias":
        assert [output[1] for output in outputs] == [1, 2]
