"""What unmodified transformers says of a folder, whichever of its versions is installed."""

from __future__ import annotations

import json
import shutil

import pytest

from langslice.errors import CheckpointError
from langslice.model.checkpoint import open_checkpoint
from langslice.model.transformers_classes import cache_of, cache_option, loading_report
from langslice.verification.tensors import check_loading

NOTHING = {"missing": set(), "unexpected": set(), "mismatched": set()}


def report_on(folder):
    return loading_report(open_checkpoint(folder))


@pytest.fixture
def rewritten(zoo, tmp_path):
    """Give a copy of a zoo checkpoint whose tensors a function has changed."""
    from safetensors.torch import load_file, save_file

    def copy(model_type, change, *, shards=1, into="copy"):
        folder = tmp_path / into
        shutil.copytree(zoo(model_type), folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        if shards == 1:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            return folder
        (folder / "model.safetensors").unlink()
        placed = {
            name: f"model-{number % shards + 1:05}-of-{shards:05}.safetensors" for number, name in enumerate(tensors)
        }
        for file in set(placed.values()):
            part = {name: tensor for name, tensor in tensors.items() if placed[name] == file}
            save_file(part, folder / file, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 0}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return copy


# One of each way that a class names its tensors: plain, tied, an encoder-decoder with shared tables, a nested text model.
KINDS = {
    "llama": "model.layers.1.mlp.up_proj.weight",
    "gemma2": "model.layers.1.mlp.up_proj.weight",
    "mbart": "model.decoder.layers.1.fc1.weight",
    "bert": "bert.encoder.layer.1.output.dense.weight",
    "t5": "decoder.block.1.layer.2.DenseReluDense.wi.weight",
}


@pytest.mark.parametrize("model_type", sorted(KINDS))
@pytest.mark.parametrize("shards", [1, 3])
def test_a_whole_checkpoint_misses_nothing(model_type, shards, rewritten):
    assert report_on(rewritten(model_type, lambda tensors: None, shards=shards)) == NOTHING


@pytest.mark.parametrize(("model_type", "name"), sorted(KINDS.items()))
@pytest.mark.parametrize("shards", [1, 3])
def test_a_missing_tensor_is_reported(model_type, name, shards, rewritten):
    report = report_on(rewritten(model_type, lambda tensors: tensors.pop(name), shards=shards))
    assert report == {**NOTHING, "missing": {name}}


@pytest.mark.parametrize(("model_type", "name"), sorted(KINDS.items()))
def test_an_extra_tensor_is_reported(model_type, name, rewritten):
    extra = name.replace("weight", "gate")
    report = report_on(rewritten(model_type, lambda tensors: tensors.update({extra: tensors[name].clone()})))
    assert report == {**NOTHING, "unexpected": {extra}}


@pytest.mark.parametrize(("model_type", "name"), sorted(KINDS.items()))
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_wrong_shape_is_reported(model_type, name, shards, dim, rewritten):
    shapes = []

    def narrow(tensors):
        whole = tensors[name]
        tensors[name] = whole.narrow(dim, 0, whole.shape[dim] - 1).contiguous()
        shapes.extend([tuple(tensors[name].shape), tuple(whole.shape)])

    report = report_on(rewritten(model_type, narrow, shards=shards))
    stored, expected = shapes
    assert report == {**NOTHING, "mismatched": {f"{name}, stored {stored}, expected {expected}"}}


@pytest.mark.parametrize("model_type", ["llama", "bert", "gemma2", "mbart"])
def test_a_table_shorter_than_the_config_says_is_reported(model_type, rewritten):
    def shorten(tensors):
        for name, tensor in tensors.items():
            if tensor.shape[:1] == (131,):
                tensors[name] = tensor[:-1].clone()

    report = report_on(rewritten(model_type, shorten))
    assert report["mismatched"]


def test_what_the_source_misses_hides_nothing_that_the_slice_misses(rewritten, zoo, tmp_path):
    def narrow(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()

    def narrow_and_drop(tensors):
        narrow(tensors)
        del tensors["model.layers.0.mlp.up_proj.weight"]

    source, out = (
        open_checkpoint(rewritten("llama", change, into=name))
        for change, name in ((narrow, "source"), (narrow_and_drop, "out"))
    )
    same = check_loading(source, source)
    assert same.passed
    assert same.detail.endswith("; 1 keys that the source already misses or has too many")
    check = check_loading(source, out)
    assert check.passed is False
    assert check.examples == ("missing: model.layers.0.mlp.up_proj.weight",)


def test_a_class_that_cannot_be_built_is_never_called_proven(rewritten, zoo):
    def nothing(tensors):
        pass

    whole, broken = (open_checkpoint(rewritten("llama", nothing, into=name)) for name in ("whole", "broken"))
    path = broken.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "no_such_function"}))
    with pytest.raises(CheckpointError, match=r"transformers \d\S+ cannot build LlamaForCausalLM from its tensors"):
        loading_report(broken)
    assert check_loading(broken, whole).passed is None
    assert check_loading(broken, whole).detail.startswith("not run: ")
    assert check_loading(whole, broken).passed is False


def test_a_cache_is_handed_over_under_the_name_that_the_class_takes():
    class New:
        def forward(self, input_ids=None, cache=None, use_cache=None, **kwargs): ...

    class Old:
        def forward(self, input_ids=None, past_key_values=None, use_cache=None): ...

    class Wrapped:
        def forward(self, *args, **kwargs): ...

    for kind, name in ((New, "cache"), (Old, "past_key_values"), (Wrapped, "past_key_values")):
        assert cache_option(kind(), "states") == {name: "states"}
        assert cache_option(kind(), None) == {}, "a class without a cache may not take the argument"


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "xglm", "m2m_100", "bart", "marian", "mt5"])
def test_a_cache_is_read_and_handed_over_without_a_deprecation(model_type, zoo, monkeypatch):
    """Warnings are errors in this suite; what transformers logs once in a process is caught here."""
    import logging

    import torch
    from transformers.utils.logging import get_logger

    from langslice.model.transformers_classes import model_class

    said = []
    assert hasattr(get_logger("transformers"), "warning_once")
    monkeypatch.setattr(logging.Logger, "warning_once", lambda _, *given, **__: said.append(given))
    folder = zoo(model_type)
    model = model_class(folder).from_pretrained(folder).eval()
    text, first, second = torch.tensor([[4, 99, 17]]), torch.tensor([[30]]), torch.tensor([[11]])
    encoder = {"input_ids": text} if model.config.is_encoder_decoder else {}
    name = "decoder_input_ids" if encoder else "input_ids"
    with torch.no_grad():
        output = model(**encoder, **{name: first}, use_cache=True)
        said.clear()  # transformers 4.50 says it of T5 when nothing was handed over
        cache = cache_of(output)
        assert cache is not None
        step = model(**encoder, **{name: second}, use_cache=True, **cache_option(model, cache))
        whole = model(**encoder, **{name: torch.cat((first, second), 1)}, use_cache=False)
    assert cache_of(whole) is None
    torch.testing.assert_close(step.logits[:, -1], whole.logits[:, -1], rtol=1e-4, atol=1e-5)
    assert said == []
