"""Healing: what comes out is the same kind of checkpoint; pruned weights stay zero; a killed run ends as an unbroken one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import langslice
from langslice.errors import HealError, VerificationError
from langslice.healing import HealOptions, heal
from langslice.healing.zeros import check_held
from langslice.mini import mini_model_path
from langslice.verification.record import read_record
from tests.zoo import add_tokenizer, build

pytestmark = pytest.mark.usefixtures("one_thread")
LINES = ["the land and men ling sed", "tin man lo", "molen the sed and"] * 12


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Lines that tiny models and langslice-mini read."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(
        "\n".join([*LINES, *(f"the {one} men sing {other}" for one in "lmnst" for other in "aeiou")]) + "\n"
    )
    return file


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A tiny Llama in float16, without a layer and without its Hangul."""
    folder = tmp_path_factory.mktemp("cut")
    source = add_tokenizer(build("llama", folder / "source", dtype="float16"))
    langslice.slice(source, folder / "cut", scripts="Latn", drop_layers="1", verify=False)
    return folder / "cut"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The same with 30% of the weights zero."""
    out = tmp_path_factory.mktemp("pruned") / "pruned"
    cut = {"languages": "ko,en", "drop_layers": "2,3,4", "sparsity": 0.3, "weights_by": "magnitude"}
    langslice.slice(mini_model_path(), out, verify=False, **cut)
    return out


def quick(text, **changes):
    """Settings of a run of a few seconds."""
    base = {"corpus": str(text), "steps": 4, "batch_size": 2, "seq_length": 48, "heldout": 0.1, "device": "cpu"}
    return HealOptions(**{**base, **changes})


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zoo_text(folder, specials):
    """Give a zoo tokenizer a mask token, or the sentinels of T5; returns a corpus."""
    settings = folder / "tokenizer_config.json"
    if specials == "sentinels":
        for path in (folder / "tokenizer.json", settings):
            path.write_text(path.read_text().replace("<extra_", "<extra_id_"))
    else:
        settings.write_text(settings.read_text().replace("}", ', "mask_token": "<extra_0>"}'))
    corpus = folder.parent / "corpus.txt"
    corpus.write_text("\n".join(LINES))
    return corpus


# --- the same kind of checkpoint


@pytest.mark.parametrize(
    ("family", "specials"),
    [("llama", ""), ("gpt2", ""), ("qwen3_moe", ""), ("xlm-roberta", ""), ("mt5", "sentinels"), ("bart", "")],
)
def test_a_rate_of_zero_gives_the_same_files(zoo, tmp_path, family, specials):
    """Loading, renaming, tying, training in float32 and writing back lose nothing."""
    source = tmp_path / "source"
    shutil.copytree(zoo(family), source)
    corpus = zoo_text(source, specials)
    before = files(source)
    out = tmp_path / "out"
    heal(source, out, quick(corpus, steps=2, learning_rate=0.0, weight_decay=0.0, seq_length=24))
    after = files(out)
    assert {name: after[name] for name in before if name != "model.safetensors"} == {
        name: data for name, data in before.items() if name != "model.safetensors"
    }
    old, new = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    assert old.keys() == new.keys()
    assert all(old[name].tobytes() == new[name].tobytes() and old[name].dtype == new[name].dtype for name in old)
    assert set(after) - set(before) == {"healing.json", "healing.parquet", "healing.png"}
    assert files(source) == before


@pytest.mark.parametrize("family", ["xlm-roberta-xl", "xlm-roberta"])
def test_rows_are_as_long_as_positions_behind_the_padding_token_allow(zoo, tmp_path, family):
    source = tmp_path / "source"
    shutil.copytree(zoo(family), source)
    corpus = zoo_text(source, "")
    corpus.write_text("\n".join(" ".join(LINES[at:] + LINES[:at]) for at in range(len(LINES))))
    langslice.slice(source, tmp_path / "cut", scripts="Latn", verify=False)
    for folder, out in ((source, "a"), (tmp_path / "cut", "b")):
        result = heal(folder, tmp_path / out, quick(corpus, steps=2, seq_length=None))
        assert np.isfinite(result.loss["last"])
    with pytest.raises(HealError, match="the model reads 94 tokens"):
        heal(source, tmp_path / "c", quick(corpus, seq_length=95))


def test_the_result_is_a_slice_of_the_same_form_and_better_on_its_text(cut, text, tmp_path):
    out = tmp_path / "out"
    steps = []
    result = heal(
        cut,
        out,
        quick(text, steps=12, learning_rate=1e-3),
        report=lambda step, done, total: steps.append((step, done, total)),
    )
    assert result.loss["heldout_after"] < result.loss["heldout_before"] - 0.1
    assert ("writing", 0, 0) in steps
    assert any(step.startswith("healing, loss ") and (done, total) == (12, 12) for step, done, total in steps)
    assert (out / "config.json").read_bytes() == (cut / "config.json").read_bytes()
    assert (out / "tokenizer.json").read_bytes() == (cut / "tokenizer.json").read_bytes()
    old, new = load_file(cut / "model.safetensors"), load_file(out / "model.safetensors")
    assert {name: (one.dtype, one.shape) for name, one in old.items()} == {
        name: (one.dtype, one.shape) for name, one in new.items()
    }
    assert new["model.norm.weight"].dtype == np.float16
    assert all((old[name] != new[name]).any() for name in result.trained)
    assert read_record(out).new_to_old.tolist() == read_record(cut).new_to_old.tolist()
    before, after = (json.loads((folder / "slice.json").read_text()) for folder in (cut, out))
    healed = after.pop("healed")
    assert after == before
    assert healed["from"] == str(cut)
    assert healed["steps"] == 12
    assert healed["loss"] == dict(result.loss)
    assert healed["settings"] == result.settings.to_json()
    assert set(healed) == {
        "from", "settings", "steps", "loss", "trained", "masks", "seconds", "resumed", "processes", "versions",
    }  # fmt: skip
    table = pq.read_table(out / "healing.parquet").to_pylist()
    assert [row["step"] for row in table] == list(range(13))
    assert table[0]["heldout_loss"] == result.loss["heldout_before"]
    assert table[12]["loss"] == result.loss["last"]
    assert (out / "healing.png").read_bytes().startswith(b"\x89PNG")
    assert not (out.parent / ".out.healing").exists()


def test_healed_again_the_first_time_is_kept(cut, text, tmp_path):
    heal(cut, tmp_path / "one", quick(text, steps=1))
    heal(tmp_path / "one", tmp_path / "two", quick(text, steps=2))
    record = json.loads((tmp_path / "two/slice.json").read_text())
    assert (record["healed"]["steps"], record["healed"]["earlier"]["steps"]) == (2, 1)
    assert read_record(tmp_path / "two").new_to_old.tolist() == read_record(cut).new_to_old.tolist()
    langslice.slice(tmp_path / "two", tmp_path / "three", scripts="Latn", verify=False)
    assert not (tmp_path / "three/healing.parquet").exists()


def test_sizes_by_layer(text, tmp_path):
    """A slice that brings modeling_sliced.py is healed by the unmodified class with its sizes."""
    cut, out = tmp_path / "cut", tmp_path / "out"
    langslice.slice(mini_model_path(), cut, languages="ko,en", drop_neurons="1:0-99", drop_layers="3-5", verify=False)
    assert "sliced_shapes" in json.loads((cut / "config.json").read_text())
    heal(cut, out, quick(text))
    old, new = load_file(cut / "model.safetensors"), load_file(out / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    assert new[name].shape == (412, 192)
    assert (old[name] != new[name]).any()
    assert (out / "modeling_sliced.py").read_bytes() == (cut / "modeling_sliced.py").read_bytes()


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_precision_checkpointing_and_accumulation(cut, text, tmp_path, precision):
    settings = quick(text, precision=precision, gradient_checkpointing=True, gradient_accumulation=2, packing=False)
    result = heal(cut, tmp_path / "out", settings)
    assert result.loss["last"] < 8


def test_bfloat16_where_there_is_nothing_but_a_cpu(text, tmp_path, monkeypatch):
    """Trainer itself refuses it there, unless it is asked for the CPU."""
    import torch

    from langslice.healing.trainer import training_arguments

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    arguments = training_arguments(quick(text, precision="bfloat16", device="auto"), tmp_path)
    assert (arguments.bf16, arguments.use_cpu) == (True, True)


@pytest.mark.parametrize("asked", [False, True])
def test_arguments_of_the_trainer_are_none_that_it_deprecates(text, tmp_path, asked):
    """Warnings are errors here; in a run those of transformers are kept from the user."""
    from langslice.healing.trainer import training_arguments

    arguments = training_arguments(quick(text, gradient_checkpointing=asked, device="cpu"), tmp_path)
    found = getattr(arguments, "activation_checkpointing", arguments.gradient_checkpointing)
    kwargs = getattr(arguments, "activation_checkpointing_kwargs", arguments.gradient_checkpointing_kwargs)
    assert bool(found) is asked
    assert kwargs == ({"use_reentrant": False} if asked else None)


def test_accumulated_batches_equal_one_large_batch(cut, text, tmp_path):
    """Rows of one length: the mean over two halves is the mean over the whole."""
    large = heal(cut, tmp_path / "large", quick(text, batch_size=4, heldout=0.0))
    small = heal(cut, tmp_path / "small", quick(text, batch_size=2, gradient_accumulation=2, heldout=0.0))
    assert small.loss["last"] == pytest.approx(large.loss["last"], abs=1e-4)
    assert small.loss["first"] == pytest.approx(large.loss["first"], abs=1e-4)


# --- which parts train


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("norms", {"input_layernorm", "post_attention_layernorm", "norm"}),
        ("embeddings", {"embed_tokens", "lm_head"}),
        ("all,!*.mlp.*,!embeddings,!norms", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("*.layers.0.mlp.up_proj.weight", {"up_proj"}),
    ],
)
def test_only_what_is_named_changes(cut, text, tmp_path, train, expected):
    result = heal(cut, tmp_path / "out", quick(text, train=train, steps=2, learning_rate=1e-3))
    old, new = load_file(cut / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    changed = {name for name in old if (old[name] != new[name]).any()}
    assert changed == set(result.trained)
    assert {name.split(".")[-2] for name in changed} == expected


# --- adapters


def test_a_merged_adapter_changes_linear_layers_only(cut, text, tmp_path):
    result = heal(cut, tmp_path / "out", quick(text, lora=4, learning_rate=1e-2))
    old, new = load_file(cut / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    changed = {name for name in old if (old[name] != new[name]).any()}
    assert changed == set(result.trained) == {name for name in old if "_proj" in name}
    difference = new["model.layers.0.mlp.up_proj.weight"].astype(float) - old["model.layers.0.mlp.up_proj.weight"]
    singular = np.linalg.svd(difference, compute_uv=False)
    assert singular[4] < 0.02 * singular[0]  # of rank 4, but for rounding


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_an_adapter_alone(cut, text, tmp_path):
    """Base and adapter together say what the merged model says."""
    import peft
    import torch
    import transformers

    settings = {"lora": 4, "lora_targets": "*.q_proj,*.v_proj", "learning_rate": 1e-2}
    heal(cut, tmp_path / "merged", quick(text, **settings))
    heal(cut, tmp_path / "adapter", quick(text, keep_adapter=True, **settings))
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "healing.parquet", "healing.png", "slice.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "adapter/slice.json").read_text())["healed"]["steps"] == 4
    ids = torch.arange(5, 30)[None]
    load = transformers.AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        merged = load(tmp_path / "merged").float()(ids).logits
        both = peft.PeftModel.from_pretrained(load(cut).float(), tmp_path / "adapter")(ids).logits
        plain = load(cut).float()(ids).logits
    assert torch.allclose(merged, both, atol=0.02)
    assert not torch.allclose(plain, both, atol=0.05)


# --- zeros that stay


@pytest.mark.parametrize("how", [{}, {"lora": 4}, {"weight_decay": 0.5, "train": "all,!norms"}])
def test_zeros_stay_exactly(pruned, text, tmp_path, how):
    out = tmp_path / "out"
    result = heal(pruned, out, quick(text, learning_rate=5e-3, **how))
    record = json.loads((pruned / "slice.json").read_text())["sparsity"]["tensors"]
    old, new = load_file(pruned / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(result.masks) == set(record)
    for name, tensor in record.items():
        assert ((old[name] == 0) == (new[name] == 0)).all()
        assert result.masks[name] == {"before": tensor["zeros"], "after": tensor["zeros"]}
        assert (old[name] != new[name]).any()
    healed = json.loads((out / "slice.json").read_text())["healed"]
    assert healed["masks"] == {name: dict(counts) for name, counts in result.masks.items()}


def test_zeros_may_fill_when_asked(pruned, text, tmp_path):
    result = heal(pruned, tmp_path / "out", quick(text, zeros="none", learning_rate=1e-3))
    old, new = load_file(pruned / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert result.masks == {}
    name = "model.layers.0.mlp.up_proj.weight"
    assert (new[name] == 0).sum() < 0.5 * (old[name] == 0).sum()


def test_masked_heads_and_pruned_rows_without_a_count_in_the_record(text, tmp_path):
    masked, out = tmp_path / "masked", tmp_path / "out"
    langslice.slice(
        mini_model_path(), masked, languages="ko,en", drop_neurons="1:7", prune_rows="*.0.mlp.up_proj=0.01:l1",
        output_style="masked", verify=False,
    )  # fmt: skip
    result = heal(masked, out, quick(text, learning_rate=5e-3))
    old, new = load_file(masked / "model.safetensors"), load_file(out / "model.safetensors")
    assert (old["model.layers.1.mlp.down_proj.weight"][:, 7] == 0).all()
    assert {name: (old[name] == 0).sum() for name in result.masks} == {
        name: (new[name] == 0).sum() for name in result.masks
    }
    for name in (
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
    ):
        assert name in result.masks
        assert ((old[name] == 0) == (new[name] == 0)).all()


def test_zeros_of_a_model_without_a_record(pruned, text, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(pruned, plain)
    (plain / "slice.json").unlink()
    result = heal(plain, tmp_path / "out", quick(text, learning_rate=5e-3))
    assert set(result.masks) == set(json.loads((pruned / "slice.json").read_text())["sparsity"]["tensors"])


def test_a_filled_zero_is_not_written(pruned, text, tmp_path, monkeypatch):
    """The check on disk does not rely on what training did."""
    from langslice.healing import zeros

    monkeypatch.setattr(zeros.Held, "apply", lambda self: None)
    monkeypatch.setattr(zeros._Masked, "__call__", lambda self, gradient: gradient)
    with pytest.raises(VerificationError, match=r"pruned weights did not stay zero in 21 tensors; nothing was written"):
        heal(pruned, tmp_path / "out", quick(text, learning_rate=5e-3))
    assert not (tmp_path / "out").exists()


def test_zeros_that_are_gone_before_training(pruned, text, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(pruned, changed)
    tensors = load_file(changed / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    row = tensors[name][0]
    row[np.flatnonzero(row == 0)[0]] = 1.0
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HealError, match=r"up_proj.weight has 29,490 zeros, slice.json says 29,491"):
        heal(changed, tmp_path / "out", quick(text))
    heal(changed, tmp_path / "out", quick(text, zeros="all"))


def test_a_weight_that_rounds_to_zero_is_not_counted_as_pruned(pruned, tmp_path):
    """1e-9 is no float16: where zeros are held it becomes the smallest number, elsewhere zero."""
    import torch

    from langslice.healing.student import load_student
    from langslice.healing.trained_weights import copy_model, write_weights
    from langslice.model.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(pruned)
    model = load_student(checkpoint)
    name = "model.layers.0.mlp.up_proj.weight"
    with torch.no_grad():
        at = torch.nonzero(model.get_parameter(name)[0])[:2, 0]
        model.get_parameter(name)[0, at] = torch.tensor([1e-9, -1e-9])
    (tmp_path / "out").mkdir()
    copy_model(checkpoint, tmp_path / "out")
    staged = open_checkpoint(tmp_path / "out")
    write_weights(model, checkpoint, staged, tmp_path / "saved", {name})
    written = load_file(tmp_path / "out/model.safetensors")[name][0, at.numpy()]
    assert written.tolist() == [2.0**-24, -(2.0**-24)]
    zeros = int((load_file(pruned / "model.safetensors")[name] == 0).sum())
    assert check_held(checkpoint, staged, {name: zeros}) == {name: {"before": zeros, "after": zeros}}
    write_weights(model, checkpoint, staged, tmp_path / "saved", ())
    with pytest.raises(VerificationError, match=r"up_proj.weight: 29,491 zeros before, 29,493 after, 0 were filled"):
        check_held(checkpoint, staged, {name: zeros})


# --- a kill


def heal_in_a_process(cut, out, settings):
    code = "import torch; torch.set_num_threads(1)\nfrom langslice.healing import heal\n"
    code += "from langslice.healing.options import settings_from\n"
    code += f"heal({str(cut)!r}, {str(out)!r}, settings_from({settings.to_json()!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


@pytest.mark.robustness
@pytest.mark.parametrize("further", [{"lora": 4, "train": "norms"}])
def test_a_killed_run_ends_as_an_unbroken_one(cut, text, tmp_path, further):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = quick(text, steps=40, save_every=4, **further)
    expected = heal(cut, whole, settings)
    process = heal_in_a_process(cut, broken, settings)
    work = tmp_path / ".broken.healing"
    deadline = time.monotonic() + 300
    while not list(work.glob("checkpoints/checkpoint-*/finished.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not broken.exists()
    found = heal(cut, broken, settings)
    assert 0 < found.resumed < 40
    assert found.loss == expected.loss
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    one, other = (pq.read_table(folder / "healing.parquet").to_pylist() for folder in (broken, whole))
    assert one == other
    assert not work.exists()


def test_an_unfinished_checkpoint_is_passed_over(cut, text, tmp_path, monkeypatch):
    """A kill while a checkpoint is written leaves one without its mark: the one before is taken."""
    from langslice.healing import main as healing
    from langslice.healing import trainer as training

    out = tmp_path / "out"

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(healing, "_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            heal(cut, out, quick(text, steps=6, save_every=2))
    work = tmp_path / ".out.healing"
    assert training.last_checkpoint(work).name == "checkpoint-6"
    (work / "checkpoints/checkpoint-6/finished.json").unlink()
    assert training.last_checkpoint(work).name == "checkpoint-4"
    with pytest.raises(HealError, match="holds an unfinished run of another kind: learning_rate differ"):
        heal(cut, out, quick(text, steps=6, learning_rate=1e-3))
    result = heal(cut, out, quick(text, steps=6, save_every=3))
    assert result.resumed == 4
    unbroken = heal(cut, tmp_path / "other", quick(text, steps=6))
    assert result.loss == unbroken.loss
    again = heal(cut, out, quick(text, steps=6), overwrite=True)
    assert (again.resumed, again.loss) == (0, unbroken.loss)


def test_two_runs_into_one_output_are_refused(cut, text, tmp_path):
    import fcntl

    work = tmp_path / ".out.healing"
    work.mkdir()
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(HealError, match="another run is healing into"):
            heal(cut, tmp_path / "out", quick(text))
    finally:
        os.close(lock)
    assert work.exists()


def test_two_processes(cut, text, tmp_path):
    """As `accelerate launch` starts them, with gloo: each sees half of a step, and one writes what one process would."""
    out = tmp_path / "out"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "langslice", "heal", cut]
    command += [
        "--corpus",
        text,
        "-o",
        out,
        "--steps",
        "3",
        "--batch-size",
        "2",
        "--seq-length",
        "48",
        "--device",
        "cpu",
    ]
    command += ["--heldout", "0", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(langslice.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=400, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    alone = heal(cut, tmp_path / "alone", quick(text, steps=3, batch_size=4, heldout=0.0))
    assert found["loss"]["last"] == pytest.approx(alone.loss["last"], abs=1e-4)
    assert json.loads((out / "slice.json").read_text())["healed"]["processes"] == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_merged_on_pruned_weights_is_what_was_trained(text, tmp_path, family):
    """Two ways: the loss of the adapted model in memory, and that of the merged one read from disk. gpt2 stores (in, out)."""
    source = add_tokenizer(build(family, tmp_path / "source"))
    langslice.slice(source, tmp_path / "cut", scripts="Latn", sparsity=0.4, weights_by="magnitude", verify=False)
    trained = heal(tmp_path / "cut", tmp_path / "out", quick(text, lora=3, learning_rate=3e-2, heldout=0.3, steps=6))
    assert len(trained.masks) > 3
    again = heal(tmp_path / "out", tmp_path / "again", quick(text, learning_rate=0.0, heldout=0.3, steps=1))
    assert trained.loss["heldout_after"] < trained.loss["heldout_before"] - 0.05
    assert again.loss["heldout_before"] == pytest.approx(trained.loss["heldout_after"], abs=1e-5)
