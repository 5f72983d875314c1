"""ONNX files: laid out as transformers.js looks for them, and computing what transformers computes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import langslice
from langslice.errors import ExportError, VerificationError

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

    def other(model, names, path):
        shutil.copy(exported.out / "onnx/model.onnx", path)
        model.encoder.layer[1].output.dense.weight.data *= 1.01

    monkeypatch.setattr(onnx_file, "_export", other)
    with pytest.raises(VerificationError, match=r"outputs: .* differ by at most"):
        langslice.export(sliced, tmp_path / "out", to="onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_written_is_refused(sliced, zoo, tmp_path, monkeypatch):
    for model_type in ("llama", "bart"):
        with pytest.raises(ExportError, match="only encoders are written as ONNX"):
            langslice.export(zoo(model_type), tmp_path / "out", to="onnx")
    with pytest.raises(ExportError, match="precision` has no effect on ONNX files"):
        langslice.export(sliced, tmp_path / "out", to="onnx", precision="q8_0")
    monkeypatch.setattr("langslice.formats.onnx_file.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ExportError, match="not installed: onnxscript") as stop:
        langslice.export(sliced, tmp_path / "out", to="onnx")
    assert stop.value.hint == "pip install 'langslice[onnx]'"
    assert list(tmp_path.iterdir()) == []
