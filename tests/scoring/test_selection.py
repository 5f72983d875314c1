"""What is dropped by scores: hand-worked choices, uniform cuts, languages, and the random control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from langslice.errors import LanguageError, PlanError, ScoreError
from langslice.model.anatomy import Heads, read_anatomy
from langslice.model.body import Routing
from langslice.model.checkpoint import open_checkpoint
from langslice.scoring.expert_selection import language_experts_to_drop, random_experts
from langslice.scoring.selection import (
    heads_to_drop,
    language_heads,
    language_heads_to_drop,
    language_neurons,
    language_neurons_to_drop,
    layers_to_drop,
    neurons_to_drop,
    random_control,
    random_layers,
)
from langslice.scoring.table import Scores, averaged


@pytest.fixture(scope="module")
def llama(zoo):
    """Three layers of 4 query and 2 key-value heads."""
    return read_anatomy(open_checkpoint(zoo("llama")))


@pytest.fixture(scope="module")
def plain(llama):
    """The same with heads of their own, and six neurons a layer."""
    heads = {"layers.self": dict.fromkeys(range(3), Heads(4, 4, 10))}
    return replace(llama, heads=heads, neurons={"layers": dict.fromkeys(range(3), 6)})


def scored(kind, method, values, **facts):
    """Scores of one seed: language -> place -> layer -> values."""
    measured = {
        language: [{place: {layer: np.array(row, float) for layer, row in one.items()} for place, one in table.items()}]
        for language, table in values.items()
    }
    return Scores(kind, method, **averaged(measured, overall=False), model="tiny", fingerprint="", **facts)


def heads(*rows, method="gradient", place="layers.self"):
    return scored("heads", method, {"": {place: dict(enumerate(rows))}})


def test_heads_are_compared_after_normalisation_within_a_layer(plain):
    # [30, 40, 0.1, 0.1] / 50 = [.6, .8, ., .];  [1, 1, 1, 1] / 2 = [.5, ...];  [9, 9, 9, 0] / 15.6 = [.577, ..., 0]
    scores = heads([30, 40, 0.1, 0.2], [1, 1, 1, 1], [9, 9, 9, 0])
    assert heads_to_drop(scores, plain, 0.25) == {"layers.self": {0: (2, 3), 2: (3,)}}
    assert heads_to_drop(scores, plain, 0.5) == {"layers.self": {0: (2, 3), 1: (0, 1, 2), 2: (3,)}}
    # gates are probabilities, and are compared as they are
    gates = heads([0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5], method="gates")
    assert heads_to_drop(gates, plain, 0.25) == {"layers.self": {1: (0, 1, 2)}}


def test_at_least_one_head_of_a_layer_stays(plain):
    scores = heads([0, 0, 0, 0], [5, 1, 1, 1], [5, 5, 5, 5])
    dropped = heads_to_drop(scores, plain, 0.99)["layers.self"]
    assert [len(gone) for gone in dropped.values()] == [3, 3, 3]
    assert 0 not in dropped[1]
    assert heads_to_drop(scores, plain, 0) == {}


def test_whole_groups_go_by_their_sum(llama):
    scores = heads([1, 9, 4, 4], [7, 7, 7, 7], [1, 1, 6, 6])
    assert heads_to_drop(scores, llama, 0.2) == {"layers.self": {0: (0,), 2: (0,)}}
    assert heads_to_drop(scores, llama, 0.2, whole_groups=True) == {"layers.self": {2: (0, 1)}}
    assert heads_to_drop(scores, llama, 0.5, whole_groups=True) == {"layers.self": {0: (2, 3), 1: (0, 1), 2: (0, 1)}}


def test_even_cuts_keep_groups_equal(llama, plain):
    scores = heads([1, 9, 4, 4], [7, 7, 7, 8], [1, 1, 6, 6])
    assert heads_to_drop(scores, llama, 0.5, even=True) == {"layers.self": {0: (2, 3), 1: (0, 1), 2: (0, 1)}}
    one_of_four = {"layers.self": {0: (0,), 1: (0,), 2: (0,)}}
    assert heads_to_drop(scores, plain, 0.25, even=True) == one_of_four
    # three key-value heads with four queries each: a quarter is one query of each group, and no whole group
    wide = replace(llama, heads={"layers.self": {0: Heads(12, 3, 2)}})
    row = [4, 1, 4, 4, 4, 4, 1, 4, 1, 4, 4, 4]
    assert heads_to_drop(heads(row), wide, 0.25, even=True) == {"layers.self": {0: (1, 6, 8)}}
    with pytest.raises(
        PlanError, match=r"0\.1 of 12 heads of layers\.self is less than the smallest uniform slice"
    ) as refused:
        heads_to_drop(heads(row), wide, 0.1, even=True)
    assert refused.value.hint == "the smallest takes 0.25 of the heads; or do without `uniform`"
    # all queries share one key-value head: it stays, queries go
    shared = replace(llama, heads={"layers.self": {0: Heads(4, 1, 2)}})
    assert heads_to_drop(heads([3, 1, 2, 4]), shared, 0.5, even=True) == {"layers.self": {0: (1, 2)}}


def test_a_shared_position_bias_asks_for_the_same_heads_in_every_layer(zoo):
    anatomy = read_anatomy(open_checkpoint(zoo("mt5")))
    rng = np.random.default_rng(0)
    tables = {
        place: {layer: rng.random(one.query) for layer, one in layers.items()}
        for place, layers in anatomy.heads.items()
    }
    dropped = heads_to_drop(scored("heads", "gradient", {"": tables}), anatomy, 0.5, even=True)
    assert set(dropped) == {"encoder.self", "decoder.self", "decoder.cross"}
    for place, layers in dropped.items():
        assert {len(gone) for gone in layers.values()} == {2}
        if place.endswith(".self"):
            assert len(set(layers.values())) == 1


def test_neurons_globally_and_evenly(plain):
    rows = {0: [1, 2, 3, 4, 5, 6], 1: [100, 1, 100, 100, 100, 100], 2: [3, 3, 3, 3, 3, 0]}
    scores = scored("neurons", "l2", {"": {"layers": rows}})
    # scaled to a mean square of 1: layer 0 is [.26, .51, ...], layer 1 [1.1, .01, ...], layer 2 [1.1, ..., 0]
    assert neurons_to_drop(scores, plain, 0.23) == {"layers": {0: (0, 1), 1: (1,), 2: (5,)}}
    assert neurons_to_drop(scores, plain, 0.4, even=True) == {"layers": {0: (0, 1), 1: (0, 1), 2: (0, 5)}}
    left = neurons_to_drop(scores, plain, 0.99)["layers"]
    assert [len(gone) for gone in left.values()] == [5, 5, 5]
    assert neurons_to_drop(scores, plain, 0.1, even=True) == {}


def layer_scores(method, rows, **settings):
    return scored("layers", method, {"": {"layers": {layer: [row] for layer, row in rows.items()}}}, settings=settings)


def test_layers_lowest_and_runs(plain, zoo):
    scores = layer_scores("block-influence", {0: 0.1, 1: 0.3, 2: 0.2})
    assert layers_to_drop(scores, plain, 1) == (0,)
    assert layers_to_drop(scores, plain, 2) == (0, 2)
    assert layers_to_drop(layer_scores("angular", {0: 0.4, 1: 0.1}, run=2), plain, 2) == (1, 2)
    with pytest.raises(ScoreError, match="these angular scores are of runs of 2 layers, and 1 are to go") as refused:
        layers_to_drop(layer_scores("angular", {0: 0.4, 1: 0.1}, run=2), plain, 1)
    assert refused.value.hint == "score with `run=1`"
    for count in (0, 3):
        with pytest.raises(PlanError, match=f"cannot drop {count} of the 3 layers of `layers`"):
            layers_to_drop(scores, plain, count)
    with pytest.raises(PlanError, match="this model has no stack `encoder`"):
        layers_to_drop(scores, plain, 1, "encoder")
    # ModernBERT's layer 0 cannot go
    modern = read_anatomy(open_checkpoint(zoo("modernbert")))
    assert layers_to_drop(scores, modern, 1) == (2,)
    assert layers_to_drop(layer_scores("angular", {0: 0.1, 1: 0.4}, run=2), modern, 2) == (1, 2)
    assert 0 not in random_layers((1, 2), modern, 0)


def test_language_neurons_by_hand(plain):
    # the 95th percentile of these 54 probabilities lies at .5: only .9 is above it
    rest = [0.5] * 6
    tables = {
        "ko": {0: [0.9, 0.0, 0.5, 0.5, 0.5, 0.5], 1: rest, 2: rest},
        "sw": {0: [0.0, 0.9, 0.5, 0.5, 0.5, 0.5], 1: rest, 2: rest},
        "fr": {0: [0.0, 0.0, 0.5, 0.5, 0.5, 0.5], 1: rest, 2: rest},
    }
    scores = scored("neurons", "lape", {language: {"layers": table} for language, table in tables.items()})
    assert language_neurons_to_drop(scores, plain, ["ko"], share=0.2) == {"layers": {0: (1,)}}
    assert language_neurons_to_drop(scores, plain, ["sw"], share=0.2) == {"layers": {0: (0,)}}
    assert language_neurons_to_drop(scores, plain, ["fr"], share=0.2) == {"layers": {0: (0, 1)}}
    assert language_neurons_to_drop(scores, plain, ["ko", "sw"], share=0.2) == {}
    assert language_neurons(scores, plain, share=0.2) == {
        "ko": {"layers": {0: (0,)}},
        "sw": {"layers": {0: (1,)}},
        "fr": {},
    }
    with pytest.raises(LanguageError, match="no scores for `de`; there are scores for fr, ko, sw"):
        language_neurons_to_drop(scores, plain, ["de"])
    with pytest.raises(LanguageError, match="every scored language is kept"):
        language_neurons_to_drop(scores, plain, ["ko", "sw", "fr"])
    with pytest.raises(LanguageError, match="no language to keep was named"):
        language_neurons_to_drop(scores, plain, [])
    with pytest.raises(ScoreError, match="language neurons are chosen by lape scores, these are by l1"):
        language_neurons_to_drop(replace(scores, method="l1"), plain, ["ko"])
    with pytest.raises(ScoreError, match="lape scores of neurons have no rows for all languages together"):
        neurons_to_drop(scores, plain, 0.1)


def test_language_heads_by_hand(plain):
    low = [1, 1, 1, 1]
    tables = {
        "ko": {0: [9, 0, 1, 9], 1: low, 2: low},
        "sw": {0: [0, 9, 1, 9], 1: low, 2: low},
    }
    scores = scored("heads", "lahis", {language: {"layers.self": table} for language, table in tables.items()})
    # a sixth of twelve heads: 0 and 3 of layer 0 are high for ko, 1 and 3 for sw; 3 is general
    assert language_heads_to_drop(scores, plain, ["ko"], high=1 / 6) == {"layers.self": {0: (1,)}}
    assert language_heads_to_drop(scores, plain, ["sw"], high=1 / 6) == {"layers.self": {0: (0,)}}
    both = {"ko": {"layers.self": {0: (0, 3)}}, "sw": {"layers.self": {0: (1, 3)}}}
    assert language_heads(scores, plain, high=1 / 6) == both


def test_the_control_has_as_many_at_random(llama, plain):
    dropped = {"layers.self": {0: (0, 1), 2: (3,)}}
    controls = [random_control(dropped, plain, seed) for seed in range(20)]
    for control in controls:
        assert {layer: len(gone) for layer, gone in control["layers.self"].items()} == {0: 2, 2: 1}
    assert len({str(control) for control in controls}) > 5
    assert random_control(dropped, plain, 3) == controls[3]
    # whole groups stay whole groups
    for seed in range(10):
        assert random_control({"layers.self": {1: (0, 1)}}, llama, seed)["layers.self"][1] in ((0, 1), (2, 3))
    neurons = random_control({"layers": {1: (0, 1, 2)}}, plain, 0)["layers"][1]
    assert len(set(neurons)) == 3
    assert max(neurons) < 6
    with pytest.raises(PlanError, match="`decoder` is no attention and no stack of this model"):
        random_control({"decoder": {0: (1,)}}, plain, 0)


def test_scores_that_do_not_fit_are_refused(plain):
    scores = heads([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(ScoreError, match="these are scores of heads, and neurons are to be chosen") as refused:
        neurons_to_drop(scores, plain, 0.1)
    assert refused.value.hint == "langslice score MODEL neurons"
    for share in (1.0, -0.1):
        with pytest.raises(PlanError, match=f"cannot drop a share of {share:g} of the heads"):
            heads_to_drop(scores, plain, share)
    with pytest.raises(ScoreError, match=r"scores from another model: at layers\.self they have"):
        heads_to_drop(heads([1, 2], [1, 2], [1, 2]), plain, 0.5)
    with pytest.raises(ScoreError, match="scores from another model: at encoder they have"):
        neurons_to_drop(scored("neurons", "l1", {"": {"encoder": {0: [1, 2]}}}), plain, 0.5)


def mixture(llama, **fields):
    """The same with six experts a layer, of which a token runs through two."""
    routing = Routing("n", "k", *(name if name in fields else "" for name in ("groups", "top")))
    stacks = {"layers": replace(llama.body.stacks["layers"], routing=routing)}
    experts = {"layers": dict.fromkeys(range(3), 6)}
    return replace(
        llama, body=replace(llama.body, stacks=stacks), experts=experts, config={**llama.config, "k": 2, **fields}
    )


def test_experts_that_serve_only_other_languages(llama):
    # A fair share is 2 / 6; who gets half of it serves the language.
    ko, fr = [0.6, 0.5, 0.1, 0.4, 0.35, 0.05], [0.05, 0.1, 0.6, 0.1, 0.1, 1.05]
    both = [0.6, 0.5, 0.1, 0.2, 0.2, 0.4]  # of this layer expert 2 alone serves only French
    tables = {"ko": {0: ko, 1: both, 2: ko}, "fr": dict.fromkeys(range(3), fr)}
    scores = scored("experts", "routed", {one: {"layers": rows} for one, rows in tables.items()})
    assert language_experts_to_drop(scores, mixture(llama), ["ko"]) == {"layers": {0: (5,), 1: (2,), 2: (5,)}}
    with pytest.raises(LanguageError, match="every scored language is kept"):
        language_experts_to_drop(scores, mixture(llama), ["ko", "fr"])
    grouped = mixture(llama, groups=2, top=1)
    assert language_experts_to_drop(scores, grouped, ["ko"]) == {}  # the second group of layer 1 has none
    even = scored("experts", "routed", {"ko": {"layers": dict.fromkeys(range(3), ko)}, "fr": {"layers": tables["fr"]}})
    gone = language_experts_to_drop(even, grouped, ["ko"])
    assert gone == {"layers": dict.fromkeys(range(3), (2, 5))}
    control = random_experts(gone, grouped, seed=0)["layers"]
    assert all([expert // 3 for expert in experts] == [0, 1] for experts in control.values())
    with pytest.raises(ScoreError, match="routed shares"):
        language_experts_to_drop(replace(even, method="other"), grouped, ["ko"])
