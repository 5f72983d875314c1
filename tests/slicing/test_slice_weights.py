"""Weight pruning as a step of `slice`: with other slices in one job, recorded, verified, and refused where it has no sense."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import langslice
from langslice.cli.app import main
from langslice.mini import heldout_text, mini_model_path


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Eight translation demonstrations of four shots."""
    file = tmp_path_factory.mktemp("demos") / "mt.jsonl"
    pairs = list(zip(heldout_text("fr"), heldout_text("en"), strict=True))
    lines = []
    for at in range(8):
        shots = pairs[4 * at : 4 * at + 4]
        parts = [part for source, target in shots for part in (f"French: {source}\n", f"English: {target}\n")]
        lines.append(json.dumps({"text": "".join(parts)}, ensure_ascii=False))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def pruned(demos, tmp_path_factory):
    """Vocabulary, a layer and weights in one job."""
    out = tmp_path_factory.mktemp("pruned") / "out"
    cut = {"languages": "fr,en", "drop_layers": "5", "sparsity": 0.3, "keep_demos": demos}
    return langslice.slice(mini_model_path(), out, **cut)


def test_what_is_cut_is_proven_and_what_is_pruned_counted(pruned):
    checks = {check.name: check for check in pruned.verification.checks}
    assert all(check.passed for check in checks.values())
    assert checks["outputs"].detail.startswith("before weights were pruned")
    record = json.loads((pruned.out / "slice.json").read_text())
    written = load_file(pruned.out / "model.safetensors")
    assert record["sparsity"]["request"]["sparsity"] == 0.3
    assert len(record["sparsity"]["tensors"]) == 5 * 7
    for name, tensor in record["sparsity"]["tensors"].items():
        rows = (written[name] == 0).sum(axis=1)
        assert int(rows.sum()) == tensor["zeros"]
        assert set(rows) == {int(0.3 * written[name].shape[1])}


def test_verify_again_and_after_a_weight_was_changed(pruned, tmp_path):
    verification = langslice.verify(mini_model_path(), pruned.out)
    assert {check.name: check.passed for check in verification.checks}["outputs"] is None
    assert verification.passed
    file = pruned.out / "model.safetensors"
    intact = file.read_bytes()
    tensors = load_file(file)
    row = tensors["model.layers.0.mlp.up_proj.weight"][0]
    row[np.flatnonzero(row)[0]] = 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    try:
        failed = {
            check.name for check in langslice.verify(mini_model_path(), pruned.out).checks if check.passed is False
        }
    finally:
        file.write_bytes(intact)
    assert failed == {"bytes"}


def test_the_same_from_a_plan(pruned, demos, tmp_path):
    cut = {"languages": "fr,en", "drop_layers": "5", "sparsity": 0.3, "keep_demos": demos}
    langslice.slice(mini_model_path(), tmp_path / "out", plan=langslice.plan(mini_model_path(), **cut), verify=False)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (pruned.out / "model.safetensors").read_bytes()


def test_without_demonstrations_and_with_links(tmp_path):
    source = mini_model_path() / "model.safetensors"
    before = source.read_bytes()
    result = langslice.slice(mini_model_path(), tmp_path / "out", pattern="2:4", weights_by="magnitude", link=True)
    assert result.verification.passed
    assert source.read_bytes() == before
    weight = load_file(tmp_path / "out/model.safetensors")["model.layers.3.mlp.up_proj.weight"]
    assert ((weight.reshape(-1, 4) == 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sparsity", "1.2", "--weights-by", "magnitude"], "1.2"),
        (["--sparsity", "0.3"], "needs calibration data, and none was given"),
        (["--weights-by", "wanda"], "--weights-by has no effect"),
        (
            ["--sparsity", "0.3", "--weights-by", "wander"],
            "--weights-by must be one of wanda, mwanda, magnitude, random, top, sparsegpt, found 'wander'",
        ),
        (["--pattern", "4:2", "--weights-by", "magnitude"], "4:2"),
        (["--sparsity", "0.3", "--keep-demos", "nothing.jsonl"], "nothing.jsonl"),
        (["--sparsity", "0.3", "--weights-by", "magnitude", "--linears", "*.nothing"], "nothing"),
    ],
)
def test_what_cannot_be_pruned_is_refused(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["langslice", "slice", str(mini_model_path()), *arguments, "-o", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("error:") == 1
    assert not list(tmp_path.iterdir())


def test_products_in_bfloat16_are_asked_for_with_compute(demos, tmp_path, capsys, monkeypatch):
    arguments = ["slice", str(mini_model_path()), "-o", str(tmp_path / "out"), "--sparsity", "0.3", "--no-verify", "-q"]
    arguments += ["--keep-demos", str(demos), "--linears", "*.0.self_attn.q_proj"]
    monkeypatch.setattr("sys.argv", ["langslice", *arguments, "--dtype", "bfloat16"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (None, 0)
    record = json.loads((tmp_path / "out" / "slice.json").read_text())
    assert record["sparsity"]["request"]["compute"] == record["plan"]["weights"]["compute"] == "bfloat16"
    start = ["slice", str(mini_model_path()), "-o", str(tmp_path / "no")]
    for more, message in (
        (["--sparsity", "0.3", "--keep-demos", str(demos), "--dtype", "float8"],
         "--dtype must be one of float32, bfloat16, found 'float8'\nhint: did you mean `float32`?"),
        (["--languages", "ko", "--dtype", "bfloat16"], "--dtype has no effect: no weight is pruned"),
    ):  # fmt: skip
        monkeypatch.setattr("sys.argv", ["langslice", *start, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "no").exists()


def test_products_in_bfloat16_need_no_processor_that_has_them(demos, tmp_path):
    """oneDNN refuses them below AVX-512, and can be made to take any processor for an older one."""
    cut = {"sparsity": 0.3, "keep_demos": demos, "linears": "*.1.*", "dtype": "bfloat16", "verify": False}
    langslice.slice(mini_model_path(), tmp_path / "here", **cut)
    here = load_file(tmp_path / "here" / "model.safetensors")
    pruned = [name for name in here if ".layers.1." in name and name.endswith("proj.weight")]
    assert len(pruned) == 7
    command = [
        sys.executable,
        "-m",
        "langslice",
        "slice",
        str(mini_model_path()),
        "--sparsity",
        "0.3",
        "--no-verify",
        "-q",
    ]
    command += ["--keep-demos", str(demos), "--linears", "*.1.*", "--dtype", "bfloat16"]
    for name, value in (("LANGSLICE_ONEDNN", "0"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ONEDNN_MAX_CPU_ISA", "SSE41")):
        out = tmp_path / value
        environment = {**os.environ, name: value}
        done = subprocess.run([*command, "-o", str(out)], env=environment, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), value
        there = load_file(out / "model.safetensors")
        same = np.mean([((here[name] == 0) == (there[name] == 0)).mean() for name in pruned])
        # The type's rounding moves one in some thousand where instructions differ.
        assert same > 0.999, value


def test_the_layer_0_is_a_layer():
    made = langslice.plan(mini_model_path(), drop_layers=0)
    assert made.structure.layers == {"layers": (1, 2, 3, 4, 5)}
