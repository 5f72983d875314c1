"""Steering: differences of means and language neurons against naive ones, the hook, the fold, the adapter's file, refusals."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

import langslice
from langslice.errors import CheckpointError, LangsliceError, LanguageError, PlanError, VerificationError
from langslice.model.checkpoint import open_checkpoint
from langslice.model.transformers_classes import model_class, quiet_transformers
from langslice.steering import apply_steering, fold_steering, load_steering, make_steering
from langslice.steering import folding as folding_module
from langslice.steering.main import middle_third, read_texts
from langslice.steering.options import SteeringOptions
from tests.scoring.test_scores import EN, KO, line_inputs

FR = ["le sel", "dans la nasse ten", "mer et lin"]
LINES = {"ko": KO, "en": EN, "fr": FR}
pytestmark = pytest.mark.usefixtures("one_thread")


def made(folder, **given):
    options = SteeringOptions(**{"steer": "ko", "texts": LINES, **given})
    return make_steering(open_checkpoint(folder), read_texts(options), options, max_tokens=128)


def stock(folder):
    with quiet_transformers():
        return model_class(folder).from_pretrained(folder).eval()


def logits(model, folder):
    import torch

    with torch.no_grad():
        return torch.cat([model(**inputs).logits[0] for inputs, _ in line_inputs(folder, KO + EN)])


@pytest.fixture(scope="module")
def adapter(zoo, tmp_path_factory):
    """Of the llama of the zoo, at all of its layers."""
    out = tmp_path_factory.mktemp("steering") / "ko"
    langslice.find_features(zoo("llama"), out, steer="ko", calibration=LINES, steer_layers="0-2", strength=0.5)
    return out


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_vectors_equal_naive_differences_of_means(zoo, model_type):
    import torch

    folder = zoo(model_type)
    model, means = stock(folder), {}
    for language, lines in LINES.items():
        states = []
        for inputs, _ in line_inputs(folder, lines):
            with torch.no_grad():
                found = model(**inputs, output_hidden_states=True).hidden_states
            states.append(torch.stack(found)[:, 0, 1:])  # without the start token
        means[language] = torch.cat(states, dim=1).double().mean(1)
    expected = means["ko"] - (means["en"] + means["fr"]) / 2
    steering = made(folder, steer_layers="0,1")  # what transformers gives of the last block is normalised
    for layer, vector in steering.vectors.items():
        np.testing.assert_allclose(vector, expected[layer + 1].numpy(), rtol=1e-4, atol=1e-6)
    assert (steering.language, steering.sources, steering.strength) == ("ko", ("en", "fr"), 0.5)
    assert list(made(folder).vectors) == [1]
    assert made(folder, steer_from="fr").sources == ("fr",)
    assert [middle_third(count) for count in (1, 2, 3, 18)] == [[0], [0, 1], [1], [6, 7, 8, 9, 10, 11]]


def long_lines():
    """Lines of three alphabets, long enough that few neurons are always active."""
    rng = random.Random(0)
    letters = {"ko": "가각간갈감값강", "en": "abcdefghi", "fr": "qrstuvwxyz"}
    return {
        language: [" ".join("".join(rng.choices(own, k=3)) for _ in range(12)) for _ in range(5)]
        for language, own in letters.items()
    }


def naive_neurons(folder, given, target):
    """LAPE of a llama, neuron by neuron, and what is particular to the target: {(layer, neuron)}."""
    import torch

    model, languages, active = stock(folder), list(given), {}
    for language, lines in given.items():
        seen = {}
        for layer, block in enumerate(model.model.layers):
            block.mlp.act_fn = block.mlp.act_fn.__class__()
            block.mlp.act_fn.register_forward_hook(
                lambda module, args, output, at=layer, seen=seen: seen.setdefault(at, []).append(output[0] > 0)
            )
        for inputs, _ in line_inputs(folder, lines):
            with torch.no_grad():
                model(**inputs)
        active[language] = {layer: torch.cat(rows).double().mean(0).tolist() for layer, rows in seen.items()}
    neurons = [(layer, at) for layer, row in active["ko"].items() for at in range(len(row))]
    chances = sorted(active[language][layer][at] for language in languages for layer, at in neurons)
    place = 0.95 * (len(chances) - 1)
    low = math.floor(place)
    bar = chances[low] + (place - low) * (chances[min(low + 1, len(chances) - 1)] - chances[low])
    entropies = []
    for layer, at in neurons:
        row = [active[language][layer][at] for language in languages]
        if max(row) > bar:
            shares = [value / sum(row) for value in row]
            entropies.append((-sum(share * math.log(share) for share in shares if share), layer, at))
    specific = [(layer, at) for _, layer, at in sorted(entropies)[: int(0.01 * len(neurons))]]
    return {(layer, at) for layer, at in specific if active[target][layer][at] > bar}


def test_neurons_equal_naive_ones(zoo, tmp_path):
    from tests.zoo import add_tokenizer, build

    folder = add_tokenizer(build("llama", tmp_path / "wide", intermediate_size=300, initializer_range=1.0))
    lines = long_lines()
    languages = {language: naive_neurons(folder, lines, language) for language in lines}
    assert any(languages.values())
    for target, own in languages.items():
        others = set().union(*(languages[each] for each in lines if each != target)) - own
        for method, expected in (("scale", own), ("zero", others)):
            if not expected:
                with pytest.raises(PlanError, match="no neuron is particular to"):
                    made(folder, steer=target, steer_by=method, texts=lines)
                continue
            vectors = made(folder, steer=target, steer_by=method, texts=lines).vectors
            assert {(layer, int(at)) for layer, row in vectors.items() for at in np.flatnonzero(row)} == expected


def test_the_hook_adds_the_vector_and_goes(zoo, adapter):
    import torch

    folder = zoo("llama")
    model, steering = stock(folder), load_steering(adapter)
    before, states = logits(model, folder), []
    hook = model.model.layers[1].register_forward_pre_hook(lambda module, args: states.append(args[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 20, 30, 40]]))
        with apply_steering(model, adapter):
            model(input_ids=torch.tensor([[1, 20, 30, 40]]))
            assert not torch.allclose(logits(model, folder), before, atol=1e-3)
    hook.remove()
    torch.testing.assert_close(states[1], states[0] + 0.5 * torch.tensor(steering.vectors[0]))
    assert torch.equal(logits(model, folder), before)
    with apply_steering(model, steering, strength=0):
        torch.testing.assert_close(logits(model, folder), before)
    # neurons are multiplied
    marked = replace(
        steering, method="zero", strength=0.0, vectors={1: np.ones(model.config.intermediate_size, np.float32)},
        modules={1: "model.layers.1.mlp.down_proj"},
    )  # fmt: skip
    seen = []
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: seen.append(output.abs().max()))
    with apply_steering(model, marked):
        logits(model, folder)
    assert not any(seen)


@pytest.mark.parametrize("model_type", ["gpt2", "bloom", "opt"])
def test_what_is_folded_equals_the_hook(zoo, tmp_path, model_type):
    import torch

    folder = zoo(model_type)
    options = SteeringOptions(steer="ko", texts=LINES, steer_layers="0-2", strength=0.5)
    out = tmp_path / "out"
    langslice.find_features(
        folder, out, steer="ko", calibration=LINES, steer_layers="0-2", strength=0.5, fold=True, pictures=False
    )
    model = stock(folder)
    before = logits(model, folder)
    with apply_steering(model, out):
        expected = logits(model, folder)
    assert (expected - before).abs().max() > 0.01
    torch.testing.assert_close(logits(stock(out / "folded"), folder), expected, atol=1e-5, rtol=1e-5)
    # again, over what is there
    langslice.find_features(folder, out, options=None, steer="ko", calibration=LINES, fold=True, overwrite=True)
    assert {path.name for path in out.iterdir()} == {"README.md", "steering.safetensors", "folded"}
    assert read_texts(options).target == "ko"


def test_what_cannot_be_folded_is_refused_by_name(zoo, tmp_path, monkeypatch):
    def refused(model_type, match, **given):
        with pytest.raises(PlanError, match=match) as caught:
            langslice.find_features(
                zoo(model_type), tmp_path / "out", steer="ko", calibration=LINES, fold=True, **given
            )
        assert "leave `fold` out" in caught.value.hint
        assert not list(tmp_path.iterdir())

    refused("gemma3_text", "`gemma3_text` has no bias in model.layers.1.mlp.down_proj")
    refused("mixtral", "layer 1 has no single last linear layer")
    refused("llama", "`fold` puts vectors into biases, and `steer_by` scale has none", steer_by="scale")
    # a block that scales what its last layer gives: the same vector in the bias is another one after the block
    monkeypatch.setattr(folding_module, "TOLERANCE", -1.0)
    refused("gpt2", "a vector in the biases of `gpt2` is not the same as one after its blocks")


def test_a_fold_needs_a_folder_to_write_to(zoo):
    with pytest.raises(PlanError, match="`fold` writes a checkpoint, and no folder was given for it") as caught:
        langslice.find_features(zoo("gpt2"), steer="ko", calibration=LINES, fold=True)
    assert caught.value.hint == "pass `out=DIR`"


def test_a_fold_that_was_not_written_as_meant_is_refused(zoo, tmp_path, monkeypatch):
    checkpoint = open_checkpoint(zoo("gpt2"))
    options = SteeringOptions(steer="ko", texts=LINES)
    texts = read_texts(options)
    steering = make_steering(checkpoint, texts, options)
    monkeypatch.setattr(folding_module, "write_tensor", lambda *given: None)
    with pytest.raises(VerificationError, match="of the folded checkpoint is not what it should be"):
        fold_steering(checkpoint, steering, texts, tmp_path / "folded")


def test_a_model_of_another_shape_is_refused(zoo, adapter, tmp_path):
    steering = load_steering(adapter)
    with (
        pytest.raises(CheckpointError, match="the adapter is of `llama` with 3 layers, the model is `gpt2`"),
        apply_steering(stock(zoo("gpt2")), adapter),
    ):
        pass
    model = stock(zoo("llama"))
    for wrong, match in (
        (replace(steering, modules={**steering.modules, 1: "model.layers.9"}), "has no module model.layers.9"),
        (
            replace(steering, vectors={**steering.vectors, 1: np.ones(7, np.float32)}),
            "layers.1 of the adapter has 7 entries",
        ),
    ):
        with pytest.raises(CheckpointError, match=match), apply_steering(model, wrong):
            pass
    assert not any(module._forward_hooks for module in model.modules())


def test_a_damaged_adapter_is_refused(adapter, tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(CheckpointError, match="no such file"):
        load_steering(tmp_path)
    path = tmp_path / "steering.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match="not a steering adapter"):
        load_steering(path)
    steering = load_steering(adapter)
    vectors = {f"layers.{layer}": vector for layer, vector in steering.vectors.items()}

    def written(change, tensors=vectors):
        save_file(tensors, path, metadata={"langslice": json.dumps({**steering.facts(), **change})})
        return path

    assert load_steering(written({})).facts() == steering.facts()
    for change, match in (
        ({"format": "langslice-steering-9"}, "format 'langslice-steering-9', expected"),
        ({"method": "pull"}, "unknown method 'pull'"),
        ({"strength": "much"}, "strength"),
        ({"modules": {"0": "model.layers.0"}}, "its tensors are of other layers"),
    ):
        with pytest.raises(CheckpointError, match=match):
            load_steering(written(change))
    with pytest.raises(CheckpointError, match=r"layers\.0 is not a vector of float32"):
        load_steering(written({}, {**vectors, "layers.0": np.ones((2, 2), np.float32)}))


def test_what_does_not_go_together_is_refused_before_anything_is_written(zoo, tmp_path):
    def refused(error, match, model_type="llama", **given):
        with pytest.raises(error, match=match):
            langslice.find_features(zoo(model_type), tmp_path / "out", **given)
        assert not list(tmp_path.iterdir())

    own = {"steer": "ko", "calibration": LINES}
    refused(PlanError, "`strength` is for `steer`, which was not given", strength=2.0)
    refused(PlanError, "`strength` is not for `steer_by` zero", steer_by="zero", strength=2.0, **own)
    refused(PlanError, "`steer_by` .*", steer_by="pull", **own)
    refused(PlanError, "the model has layers 0 to 2", steer_layers="2-3", **own)
    refused(LanguageError, "`calibration` has no text in `de`", steer="de", calibration=LINES)
    refused(LanguageError, "no other language than `ko`", steer="ko", calibration={"ko": KO})
    refused(LanguageError, "no other language than `ko`", steer="ko", steer_from="ko", calibration=LINES)
    refused(PlanError, "BertForMaskedLM does not go on writing a text", model_type="bert", **own)
    refused(PlanError, "`mt5` has encoder and decoder, and steering is of causal models", model_type="mt5", **own)
    refused(PlanError, "layer 0 has experts", model_type="mixtral", steer_by="scale", **own)
    refused(LangsliceError, "no demonstrations were given")
