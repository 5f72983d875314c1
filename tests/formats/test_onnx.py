"""ONNX files: laid out as transformers.js looks for them, and computing what transformers computes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import langslice
from langslice.errors import ExportError, VerificationError
from tests.zoo import VOCABULARY, add_tokenizer, build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sliced(zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut") / "cut"
    langslice.slice(zoo("bert"), folder, max_vocab=90, scripts="Latin", verify=False)
    return folder


@pytest.fixture(scope="module")
def exported(sliced, tmp_path_factory):
    return langslice.export(sliced, tmp_path_factory.mktemp("onnx") / "out", to="onnx")


def test_an_encoder_is_written_and_computes_the_same(exported):
    import onnxruntime

    done = exported
    assert {check.name: check.passed for check in done.checks} == {"outputs": True, "int8 outputs": True}
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx", "config.json", "tokenizer.json", "tokenizer_config.json",
            "export.json"} <= set(done.files)  # fmt: skip
    assert not any("safetensors" in name or name == "slice.json" for name in done.files)
    assert done.files["onnx/model_quantized.onnx"] < done.files["onnx/model.onnx"]
    session = onnxruntime.InferenceSession(str(done.out / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    ones = np.ones((3, 11), dtype=np.int64)
    given = {"input_ids": ones, "attention_mask": ones, "token_type_ids": 0 * ones}
    assert session.run(["last_hidden_state"], given)[0].shape == (3, 11, 24)
    assert json.loads((done.out / "export.json").read_text())["to"] == "onnx"


def test_a_file_that_computes_something_else_is_not_kept(sliced, exported, tmp_path, monkeypatch):
    from langslice.formats import onnx_file

    def other(graph, path):
        shutil.copy(exported.out / "onnx/model.onnx", path)
        graph.module.model.encoder.layer[1].output.dense.weight.data *= 1.01

    monkeypatch.setattr(onnx_file, "_export", other)
    with pytest.raises(VerificationError, match=r"outputs: .* differ by at most"):
        langslice.export(sliced, tmp_path / "out", to="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_decoder_goes_on_from_what_it_cached(tmp_path):
    import onnxruntime

    folder = add_tokenizer(build("llama", tmp_path / "model", num_hidden_layers=1))
    done = langslice.export(folder, tmp_path / "out", to="onnx")
    assert {check.name: check.passed for check in done.checks} == {"outputs": True, "int8 outputs": True}
    session = onnxruntime.InferenceSession(str(done.out / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    past = ["past_key_values.0.key", "past_key_values.0.value"]
    names = ["input_ids", "attention_mask", "position_ids", *past]
    assert [each.name for each in session.get_inputs()] == names
    assert [each.name for each in session.get_outputs()] == ["logits", "present.0.key", "present.0.value"]
    ids, nothing = np.array([[5, 9, 7, 11]]), np.zeros((1, 2, 0, 10), dtype=np.float32)
    whole = session.run(None, dict(zip(names, (ids, 0 * ids + 1, np.arange(4)[None], nothing, nothing), strict=True)))
    first = session.run(
        None, dict(zip(names, (ids[:, :3], 0 * ids[:, :3] + 1, np.arange(3)[None], nothing, nothing), strict=True))
    )
    last = session.run(None, dict(zip(names, (ids[:, 3:], 0 * ids + 1, np.array([[3]]), *first[1:]), strict=True)))
    assert np.abs(last[0][0, 0] - whole[0][0, 3]).max() < 1e-5
    assert last[1].shape == (1, 2, 4, 10)


def test_an_encoder_decoder_has_both_steps_in_one_file_and_its_weights_once(tmp_path):
    import onnx

    folder = add_tokenizer(build("marian", tmp_path / "model", encoder_layers=1, decoder_layers=1))
    done = langslice.export(folder, tmp_path / "out", to="onnx")
    assert {check.name: check.passed for check in done.checks} == {"outputs": True, "int8 outputs": True}
    merged = onnx.load(str(done.out / "onnx/decoder_model_merged.onnx")).graph
    past = [f"past_key_values.0.{half}.{kind}" for half in ("decoder", "encoder") for kind in ("key", "value")]
    taken = ["encoder_attention_mask", "input_ids", "encoder_hidden_states", *past, "use_cache_branch"]
    assert [each.name for each in merged.input] == taken
    assert [each.name for each in merged.output] == [
        "logits",
        *(name.replace("past_key_values", "present") for name in past),
    ]
    assert [node.op_type for node in merged.node] == ["If"]
    contents = [(tuple(each.dims), each.raw_data) for each in merged.initializer]
    assert len(contents) == len(set(contents))
    # A merged file of which the later step alone computes something else is noticed.
    from langslice.formats import onnx_file, onnx_merge

    assert json.loads((done.out / "export.json").read_text())["kind"] == onnx_file.WITH_ENCODER
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(VerificationError, match=r"outputs: .* differ by at most"),
    ):
        patch.setattr(
            onnx_file, "_write_files", lambda model, kind, out: spoiled(done.out / "onnx", out, onnx_merge.SWITCH)
        )
        langslice.export(folder, tmp_path / "other", to="onnx")
    assert not (tmp_path / "other").exists()


def spoiled(source, out, switch):
    """Files of an earlier export, in which the later step gives half of its logits."""
    import onnx
    from onnx import helper

    for path in source.iterdir():
        shutil.copy(path, out)
    model = onnx.load(str(out / "decoder_model_merged.onnx"))
    (choose,) = model.graph.node
    branch = next(each.g for each in choose.attribute if each.name == "then_branch")
    for node in branch.node:
        for at, name in enumerate(node.output):
            if name == "later/logits":
                node.output[at] = "later/halved"
    half = helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.5])
    model.graph.initializer.append(half)
    branch.node.append(helper.make_node("Mul", ["later/halved", "half"], ["later/logits"]))
    assert choose.input[0] == switch
    onnx.save(model, str(out / "decoder_model_merged.onnx"))
    return ["encoder_model", "decoder_model_merged"]


def unwritable(*given, **named):
    raise RuntimeError("a trace of many lines") from ValueError("no op for this")


def without_keys(folder):
    """A decoder that caches states."""
    import transformers

    config = transformers.AutoConfig.for_model(
        "mamba", vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=1, state_size=4
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return add_tokenizer(folder)


def test_what_is_not_written_is_refused(sliced, zoo, tmp_path, tmp_path_factory, monkeypatch):
    with pytest.raises(ExportError, match="a model of several"):
        langslice.export(zoo("gemma3"), tmp_path / "out", to="onnx")
    with pytest.raises(ExportError, match="only models that cache keys and values"):
        langslice.export(without_keys(tmp_path_factory.mktemp("mamba")), tmp_path / "out", to="onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langslice.formats.onnx_file._MOST_BYTES", 1000)
        with pytest.raises(ExportError, match="an ONNX file holds 2 GB"):
            langslice.export(sliced, tmp_path / "out", to="onnx")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ExportError, match="exporter does not write BertModel: no op"),
    ):
        patch.setattr("torch.onnx.export", unwritable)
        langslice.export(sliced, tmp_path / "out", to="onnx")
    with pytest.raises(ExportError, match="precision` has no effect on ONNX files"):
        langslice.export(sliced, tmp_path / "out", to="onnx", precision="q8_0")
    monkeypatch.setattr("langslice.formats.onnx_file.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ExportError, match="not installed: onnxscript") as stop:
        langslice.export(sliced, tmp_path / "out", to="onnx")
    assert stop.value.hint == "pip install 'langslice[onnx]'"
    assert list(tmp_path.iterdir()) == []
