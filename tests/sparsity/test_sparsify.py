"""Pruning in place, against a naive reimplementation on the loaded model; what must be refused; kill and resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from langslice.demonstrations import Demonstration, write_demonstrations
from langslice.errors import CheckpointError, CorpusError, PlanError, TokenizerError, VerificationError
from langslice.sparsity import SparsityRequest, prune_copy, sparsify

KEEP = (
    Demonstration("mt", ("the lamb and", "sing ted", "모두 the", "mend net"), "\n", ("fr", "en"), answer=True),
    Demonstration("mt", ("nest lime", "some tent and the lemon"), "\n", ("fr", "en"), answer=True),
    Demonstration("mt", ("a", "test"), "\n", ("fr", "en"), answer=True),
)
AVOID = (Demonstration("code", ("no let sum",)), Demonstration("code", ("list set",)))
FAMILIES = ("llama", "xglm", "bloom", "gpt2", "m2m_100", "mt5")


def load(folder: Path):
    from langslice.model.transformers_classes import model_class, quiet_transformers

    with quiet_transformers():
        return model_class(folder).from_pretrained(folder).float().eval()


def stacks(model) -> list[str]:
    """Names of blocks in the order in which they run, written down rather than found."""
    layers = {
        "llama": ["model.layers"],
        "xglm": ["model.layers"],
        "bloom": ["transformer.h"],
        "gpt2": ["transformer.h"],
        "m2m_100": ["model.encoder.layers", "model.decoder.layers"],
        "mt5": ["encoder.block", "decoder.block"],
    }[model.config.model_type]
    return [f"{stack}.{index}" for stack in layers for index in range(len(model.get_submodule(stack)))]


def naive_masks(
    folder: Path, share: float, *, avoid: bool, keep: tuple = KEEP, epsilon: float = 1e-6
) -> dict[str, np.ndarray]:
    """Prune the whole loaded model, one block after another, one row after another, in float64."""
    import torch
    from transformers.pytorch_utils import Conv1D

    from langslice.demonstrations.tokens import load_prompts

    prompts = load_prompts(folder, {"keep": keep, **({"avoid": AVOID} if avoid else {})}, max_tokens=512)
    model = load(folder)
    masks: dict[str, np.ndarray] = {}
    for block in stacks(model):
        linears = {
            f"{block}.{name}": module
            for name, module in model.get_submodule(block).named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
        sums: dict[tuple[str, str], np.ndarray] = {}
        for prompt in prompts:
            hooks = []
            for name, module in linears.items():

                def note(_, given, name=name, prompt=prompt, sums=sums):
                    rows = given[0].detach().double().numpy().reshape(-1, given[0].shape[-1])
                    squares = sum(row**2 for row in rows)
                    sums[prompt.condition, name] = sums.get((prompt.condition, name), 0) + squares

                hooks.append(module.register_forward_pre_hook(note))
            with torch.no_grad():
                model(**prompt.inputs())
            for hook in hooks:
                hook.remove()
        for name, module in linears.items():
            transposed = isinstance(module, Conv1D)
            weight = (
                module.weight.detach().double().numpy().T if transposed else module.weight.detach().double().numpy()
            )
            factor = sums["keep", name] / len(keep)
            if avoid:
                factor = factor * factor / (sums["avoid", name] / len(AVOID) + epsilon)
            mask = np.zeros(weight.shape, dtype=bool)
            for row in range(weight.shape[0]):
                order = np.argsort(np.abs(weight[row]) * np.sqrt(factor), kind="stable")
                mask[row, order[: int(weight.shape[1] * share)]] = True
            masks[f"{name}.weight"] = mask.T if transposed else mask
            with torch.no_grad():
                module.weight[torch.from_numpy(masks[f"{name}.weight"])] = 0.0
    return masks


def zeros_of(folder: Path, name: str) -> np.ndarray:
    from langslice.model.checkpoint import open_checkpoint
    from langslice.sparsity.weight_bytes import read_tensor

    return read_tensor(open_checkpoint(folder).tensors[name]).numpy() == 0


def copy_of(zoo, model_type: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo(model_type), tmp_path / model_type))


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("avoid", [False, True], ids=["keep", "keep-avoid"])
def test_masks_equal_a_naive_reimplementation(zoo, tmp_path, model_type, avoid):
    expected = naive_masks(zoo(model_type), 0.3, avoid=avoid)
    request = SparsityRequest(0.3, keep_demos=KEEP, avoid_demos=AVOID if avoid else ())
    done = prune_copy(zoo(model_type), tmp_path / "out", request)
    assert done.tensors.keys() == expected.keys()
    for name, mask in expected.items():
        assert np.array_equal(zeros_of(tmp_path / "out", name), mask), name
        rows = mask.shape[1] if model_type == "gpt2" else mask.shape[0]
        assert abs(done.tensors[name].achieved - 0.3) * mask.size <= rows, "within one weight a row"
    assert done.prompts == ({"keep": 3, "avoid": 2} if avoid else {"keep": 3})


@pytest.mark.parametrize("model_type", FAMILIES)
def test_masks_from_packed_weights_equal_a_naive_reimplementation(zoo, tmp_path, monkeypatch, model_type):
    monkeypatch.setattr("langslice.sparsity.packed_weights.MIN_TOKENS", 1)
    expected = naive_masks(zoo(model_type), 0.3, avoid=False)
    prune_copy(zoo(model_type), tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    for name, mask in expected.items():
        assert np.array_equal(zeros_of(tmp_path / "out", name), mask), name


def test_masks_of_langslice_mini_equal_a_naive_reimplementation(tmp_path):
    from langslice.mini import heldout_text, mini_model_path

    texts = heldout_text("en")[:2]
    demonstrations = tuple(Demonstration("mono", (text,)) for text in texts)
    prune_copy(mini_model_path(), tmp_path / "out", SparsityRequest(0.5, keep_demos=demonstrations))
    expected = naive_masks(mini_model_path(), 0.5, avoid=False, keep=demonstrations)
    wrong = sum(int((zeros_of(tmp_path / "out", name) != mask).sum()) for name, mask in expected.items())
    # Real scores lie close together: float32 sums may order two of them otherwise than float64 does.
    assert wrong <= 2e-5 * sum(mask.size for mask in expected.values())


@pytest.mark.parametrize("score", ["wanda", "magnitude", "random", "top", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_every_score_and_pattern(zoo, tmp_path, score, pattern, model_type):
    keep = KEEP if score in ("wanda", "top", "sparsegpt") else ()
    done = prune_copy(
        zoo(model_type), tmp_path / "out", SparsityRequest(0.5, pattern=pattern, keep_demos=keep, score=score)
    )
    for name, tensor in done.tensors.items():
        zeros = zeros_of(tmp_path / "out", name)
        zeros = zeros.T if model_type == "gpt2" else zeros
        assert zeros.sum() == tensor.zeros
        if pattern == "2:4":
            assert (zeros.reshape(zeros.shape[0], -1, 4).sum(axis=2) == 2).all(), name
        elif score in ("wanda", "random", "top"):
            assert (zeros.sum(axis=1) == zeros.shape[1] // 2).all(), name
        else:
            assert abs(tensor.achieved - 0.5) < 1e-3


def test_top_removes_what_wanda_keeps(zoo, tmp_path):
    prune_copy(zoo("llama"), tmp_path / "wanda", SparsityRequest(0.5, keep_demos=KEEP))
    prune_copy(zoo("llama"), tmp_path / "top", SparsityRequest(0.5, keep_demos=KEEP, score="top"))
    name = "model.layers.0.self_attn.q_proj.weight"  # the first inputs do not depend on what was pruned before
    assert np.array_equal(zeros_of(tmp_path / "wanda", name), ~zeros_of(tmp_path / "top", name))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_every_other_byte(tmp_path, dtype):
    from tests.zoo import add_tokenizer, build

    source = add_tokenizer(build("qwen3", tmp_path / "source", dtype=dtype))
    done = prune_copy(source, tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    assert {tensor.achieved for tensor in done.tensors.values()} <= {7 / 24, 12 / 40, 13 / 44}
    prune_copy(source, tmp_path / "gpt", SparsityRequest(0.3, keep_demos=KEEP, score="sparsegpt"))
    prune_copy(source, tmp_path / "disk", SparsityRequest(0.3, keep_demos=KEEP, offload=True))
    assert (tmp_path / "disk/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()


def test_offloading_an_encoder_decoder_changes_nothing(zoo, tmp_path):
    prune_copy(zoo("mt5"), tmp_path / "memory", SparsityRequest(0.3, keep_demos=KEEP))
    prune_copy(zoo("mt5"), tmp_path / "disk", SparsityRequest(0.3, keep_demos=KEEP, offload=True))
    assert (tmp_path / "disk/model.safetensors").read_bytes() == (tmp_path / "memory/model.safetensors").read_bytes()


@pytest.mark.parametrize("model_type", ["llama", "mt5", "bloom"])
def test_products_in_bfloat16_prune_nearly_the_same(zoo, tmp_path, model_type):
    exact = prune_copy(zoo(model_type), tmp_path / "exact", SparsityRequest(0.3, keep_demos=KEEP))
    prune_copy(zoo(model_type), tmp_path / "fast", SparsityRequest(0.3, keep_demos=KEEP, compute="bfloat16"))
    same = [(zeros_of(tmp_path / "exact", name) == zeros_of(tmp_path / "fast", name)).mean() for name in exact.tensors]
    assert np.mean(same) > 0.97


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mt5"])
def test_plain_products_prune_the_same_as_those_of_onednn(zoo, tmp_path, monkeypatch, model_type, compute):
    from langslice.sparsity import packed_weights as packing

    monkeypatch.setattr(packing, "MIN_TOKENS", 1)
    request = SparsityRequest(0.3, keep_demos=KEEP, compute=compute)
    packed = prune_copy(zoo(model_type), tmp_path / "packed", request)
    monkeypatch.setattr(packing, "_operations", lambda compute: None)
    plain = prune_copy(zoo(model_type), tmp_path / "plain", request)
    assert packed.tensors.keys() == plain.tensors.keys()
    same = [
        (zeros_of(tmp_path / "packed", name) == zeros_of(tmp_path / "plain", name)).mean() for name in packed.tensors
    ]
    # Scores that differ by less than rounding may change places.
    assert np.mean(same) > 0.9999


def test_layers_by_pattern_and_allocation(zoo, tmp_path):
    request = SparsityRequest(
        0.5, keep_demos=KEEP, linears=("*.mlp.*", "!*.2.mlp.up_proj"), allocation="*.layers.0.*=0.25"
    )
    done = prune_copy(zoo("llama"), tmp_path / "out", request)
    assert sorted(done.tensors) == sorted(
        f"model.layers.{layer}.mlp.{name}_proj.weight"
        for layer in range(3)
        for name in ("gate", "up", "down")
        if (layer, name) != (2, "up")
    )
    assert {name.split(".")[2]: tensor.asked for name, tensor in done.tensors.items()} == {
        "0": 0.25,
        "1": 0.5,
        "2": 0.5,
    }
    document = json.loads(json.dumps(done.to_json()))
    assert document["request"]["keep_demos"] == ["3 demonstrations"]
    assert document["tensors"]["model.layers.0.mlp.up_proj.weight"]["achieved"] == 0.25


def test_outlier_allocation_keeps_the_mean(zoo, tmp_path):
    done = prune_copy(zoo("llama"), tmp_path / "out", SparsityRequest(0.5, keep_demos=KEEP, allocation="outliers"))
    asked = {name.split(".")[2]: tensor.asked for name, tensor in done.tensors.items()}
    assert sum(asked.values()) / 3 == pytest.approx(0.5)
    assert max(asked.values()) - min(asked.values()) == pytest.approx(0.16)


def test_padding_counts_only_when_asked_for(zoo, tmp_path):
    plain = prune_copy(zoo("llama"), tmp_path / "plain", SparsityRequest(0.3, keep_demos=KEEP, max_tokens=40))
    padded = prune_copy(
        zoo("llama"), tmp_path / "padded", SparsityRequest(0.3, keep_demos=KEEP, max_tokens=40, count_padding=True)
    )
    assert padded.tokens == {"keep": 3 * 40} and plain.tokens["keep"] < 3 * 40
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not np.array_equal(zeros_of(tmp_path / "plain", name), zeros_of(tmp_path / "padded", name))


def test_towers_that_text_does_not_reach_are_named(zoo, tmp_path):
    done = prune_copy(zoo("gemma3"), tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    (note,) = done.notes
    assert note.startswith("not pruned, because text does not reach them: ") and note.count("vision_tower") == 2
    assert len(done.layers) == 3


def interrupted(zoo, tmp_path, monkeypatch, place: str) -> tuple[bytes, bytes, int]:
    """Prune; then again, stopped at a place and resumed: both results, and the blocks that were not done again."""
    from langslice.sparsity import journal

    request = SparsityRequest(0.3, keep_demos=KEEP)
    prune_copy(zoo("m2m_100"), tmp_path / "whole", request)
    original, calls = journal._apply, []

    def dying(edits):
        calls.append(edits)
        if len(calls) == 3:
            original(edits[: {"before": 0, "within": 2}[place]])
            raise KeyboardInterrupt
        original(edits)

    monkeypatch.setattr(journal, "_apply", dying)
    with pytest.raises(KeyboardInterrupt):
        prune_copy(zoo("m2m_100"), tmp_path / "out", request, work=tmp_path / "work")
    monkeypatch.setattr(journal, "_apply", original)
    done = prune_copy(zoo("m2m_100"), tmp_path / "out", request, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert len(done.layers) == 5 and len(done.tensors) == 2 * 6 + 3 * 10
    return *((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")), done.resumed


@pytest.mark.parametrize("place", ["before", "within"])
def test_a_run_that_died_in_a_block_goes_on_and_ends_the_same(zoo, tmp_path, monkeypatch, place):
    whole, resumed, blocks = interrupted(zoo, tmp_path, monkeypatch, place)
    assert whole == resumed
    assert blocks == 3


@pytest.mark.robustness
def test_a_killed_process_is_resumed(zoo, tmp_path):
    folder = copy_of(zoo, "bloom", tmp_path)
    write_demonstrations(KEEP, tmp_path / "mt.jsonl")
    code = f"""
import os, signal
from pathlib import Path
from langslice.sparsity import SparsityRequest, sparsify
def report(step, done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
sparsify(Path({str(folder)!r}), SparsityRequest(0.3, keep_demos=({str(tmp_path / "mt.jsonl")!r},)),
         work=Path({str(tmp_path / "work")!r}), report=report)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(PlanError, match="the work folder belongs to another run"):
        sparsify(folder, SparsityRequest(0.4, keep_demos=KEEP), work=tmp_path / "work")
    done = sparsify(folder, SparsityRequest(0.3, keep_demos=KEEP), work=tmp_path / "work")
    assert done.resumed == 2
    prune_copy(zoo("bloom"), tmp_path / "whole", SparsityRequest(0.3, keep_demos=KEEP))
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def damaged(folder: Path, name: str, value: float) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model.layers.1.mlp.down_proj.weight",
            r"infinite or NaN activation in the output of model\.layers\.1\n  calibration prompt 0",
        ),
        (
            "model.layers.1.mlp.up_proj.weight",
            r"infinite or NaN activation at the input of model\.layers\.1\.mlp\.down_proj",
        ),
        ("model.embed_tokens.weight", r"infinite or NaN activation before model\.layers\.0, in the embeddings"),
    ],
)
def test_activations_that_are_not_finite_name_the_layer(zoo, tmp_path, name, message):
    folder = copy_of(zoo, "llama", tmp_path)
    if "embed" in name:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors[name][:] = float("inf")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        damaged(folder, name, float("nan"))
    with pytest.raises(CheckpointError, match=message):
        sparsify(folder, SparsityRequest(0.3, keep_demos=KEEP))


def test_quantised_weights_are_refused(zoo, tmp_path):
    folder = copy_of(zoo, "llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(
        CheckpointError, match=r"quantised weights cannot be pruned\n.*\n  .*quantization_config \(gptq\)"
    ):
        sparsify(folder, SparsityRequest(0.3, keep_demos=KEEP))
    import torch
    from safetensors.torch import load_file, save_file

    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, name: tensors[name].to(torch.int8)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"up_proj\.weight is stored as I8"):
        sparsify(folder, SparsityRequest(0.3, keep_demos=KEEP))


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("albert", r"model type `albert` cannot be pruned block by block: its blocks share one set of weights"),
        ("whisper", r"WhisperForConditionalGeneration reads input_features"),
    ],
)
def test_architectures_that_are_refused_are_left_as_they_were(zoo, tmp_path, model_type, message):
    folder = copy_of(zoo, model_type, tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=message):
        sparsify(folder, SparsityRequest(0.3, keep_demos=KEEP))
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"linears": ("*.fc1",)}, PlanError, r"no linear layer matches '\*\.fc1'"),
        ({"linears": ("!*",)}, PlanError, "the patterns leave no linear layer to prune"),
        ({"allocation": "*.fc1=0.2"}, PlanError, r"no pruned layer matches '\*\.fc1' of the allocation"),
        (
            {"sparsity": None, "pattern": "3:7"},
            PlanError,
            r"pattern 3:7 does not fit model\.layers\.0.*24 inputs a row",
        ),
        ({"sparsity": 0.01}, PlanError, "no weight was zeroed: 21 tensors, sparsity 0.01"),
        ({"keep_demos": (Demonstration("mt", messages=(("user", "the"),)),)}, TokenizerError, "has no chat template"),
        ({"keep_demos": ("missing.jsonl",)}, CorpusError, "missing.jsonl: no such file of demonstrations"),
    ],
)
def test_requests_that_do_not_fit_the_model(zoo, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        prune_copy(zoo("llama"), tmp_path / "out", SparsityRequest(**{"sparsity": 0.3, "keep_demos": KEEP, **changes}))
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_differs_elsewhere_is_noticed(zoo, tmp_path):
    from langslice.model.checkpoint import open_checkpoint
    from langslice.sparsity.pruned_copy import check_pruned

    done = prune_copy(zoo("llama"), tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    name = "model.layers.0.mlp.up_proj.weight"
    for tensor, message in (
        ("model.norm.weight", "model.norm.weight was not to be pruned, and differs from its source"),
        (name, f"{name} differs from its source in a weight that was kept"),
    ):
        broken = Path(shutil.copytree(tmp_path / "out", tmp_path / tensor))
        from safetensors.torch import load_file, save_file

        tensors = load_file(broken / "model.safetensors")
        place = tensors[tensor].view(-1).nonzero()[0]
        tensors[tensor].view(-1)[place] += 1.0
        save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(VerificationError, match=message):
            check_pruned(open_checkpoint(zoo("llama")), open_checkpoint(broken), done)
