"""Whole trained models, sliced to Korean and English and run by other programs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import langslice


@pytest.mark.models("multilingual-e5-small")
def test_e5_as_gguf_and_onnx(models, tmp_path):
    langslice.slice(models / "multilingual-e5-small", tmp_path / "cut", languages="ko,en", verify=False)
    for target, names in (("gguf", {"weights", "tokens", "outputs"}), ("onnx", {"outputs", "int8 outputs"})):
        done = langslice.export(tmp_path / "cut", tmp_path / target, to=target)
        assert {check.name for check in done.checks} == names
        assert all(check.passed is not False for check in done.checks)
        assert target != "gguf" or find_spec("xllamacpp") is None or all(check.passed for check in done.checks)


@pytest.mark.models("gemma-3-270m")
def test_gemma_as_gguf(models, tmp_path):
    langslice.slice(models / "gemma-3-270m", tmp_path / "cut", languages="ko,en", verify=False)
    done = langslice.export(tmp_path / "cut", tmp_path / "gguf", precision="q8_0")
    passed = {check.name: check.passed for check in done.checks}
    absent = find_spec("xllamacpp") is None
    assert (passed["weights"], passed["tokens"], passed["outputs"]) == (True, *(2 * [None if absent else True]))
    assert done.files["gguf-q8_0.gguf"] < 200_000_000


@pytest.mark.models("gemma-3-270m", "multilingual-e5-small")
@pytest.mark.parametrize(("name", "checks"), [("gemma-3-270m", 4), ("multilingual-e5-small", 3)])
def test_a_gguf_file_is_sliced_as_the_model_is(models, tmp_path, name, checks):
    langslice.export(models / name, tmp_path / "gguf", precision="q8_0", verify=False)
    done = langslice.slice(tmp_path / "gguf/gguf-q8_0.gguf", tmp_path / "out.gguf", languages="ko,en")
    assert done.plan.kept.tolist() == langslice.plan(models / name, languages="ko,en").kept.tolist()
    assert len(done.verification.checks) >= checks
    assert find_spec("xllamacpp") is None or all(check.passed for check in done.verification.checks)
