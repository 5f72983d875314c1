"""Pruning models whose blocks are not alike: per-layer sizes, and experts, against naive loops on the loaded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import langslice
from langslice.demonstrations import Demonstration
from langslice.errors import CheckpointError
from langslice.sparsity import SparsityRequest, prune_copy
from tests.sparsity.test_sparsify import KEEP, load, naive_masks, zeros_of

CUTS = {
    "llama": {"drop_neurons": ["0:1-5", "2:0-10"]},
    "xglm": {"drop_heads": ["0:1", "2:0,3"], "drop_neurons": ["1:0-7"]},
    "bloom": {"drop_heads": ["0:1", "1:0,2"]},
    "gpt2": {"drop_neurons": ["0:1-5"], "drop_heads": ["2:1"]},
    "m2m_100": {"drop_heads": ["encoder.1:0", "decoder.0:1,2"], "drop_neurons": ["encoder.0:1-5"]},
    "mt5": {"drop_heads": ["encoder.0:1", "encoder.1:0,2", "decoder.1:0,2"]},
}
EXPERTS = ("qwen3_moe", "mixtral", "deepseek_v3")
ONE = (Demonstration("mono", ("a",)),)  # too short to reach every expert


@pytest.fixture(scope="module")
def sized(zoo, tmp_path_factory):
    """Slices with per-layer sizes, as langslice writes them."""
    made: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = tmp_path_factory.mktemp("sized") / model_type
            langslice.slice(zoo(model_type), made[model_type], output_style="sliced", verify=False, **CUTS[model_type])
        return made[model_type]

    return get


@pytest.mark.parametrize("model_type", sorted(CUTS))
def test_masks_of_blocks_of_different_sizes_equal_a_naive_reimplementation(sized, tmp_path, model_type):
    source = sized(model_type)
    assert "sliced_shapes" in json.loads((source / "config.json").read_text())
    expected = naive_masks(source, 0.3, avoid=False)
    done = prune_copy(source, tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    assert done.tensors.keys() == expected.keys()
    assert len({tensor.shape for name, tensor in done.tensors.items()}) > len(
        {tensor.shape for name, tensor in done.tensors.items() if ".2." in name}
    ), "the blocks differ"
    for name, mask in expected.items():
        assert np.array_equal(zeros_of(tmp_path / "out", name), mask), name
    assert (tmp_path / "out/modeling_sliced.py").read_bytes() == (source / "modeling_sliced.py").read_bytes()


def lowest(weight: np.ndarray, squares: np.ndarray, share: float) -> np.ndarray:
    """One row after another."""
    mask = np.zeros(weight.shape, dtype=bool)
    for row in range(weight.shape[0]):
        order = np.argsort(np.abs(weight[row]) * np.sqrt(squares), kind="stable")
        mask[row, order[: int(weight.shape[1] * share)]] = True
    return mask


def expert_inputs(experts, given: tuple) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Sums of squares of what each expert reads, and of what its last layer reads, from the router's choice alone."""
    hidden, chosen = given[0].double(), given[1]
    found = {}
    for expert in range(experts.num_experts):
        tokens = hidden[(chosen == expert).any(dim=-1)]
        gate, up = (tokens @ experts.gate_up_proj[expert].double().T).chunk(2, dim=-1)
        inner = experts.act_fn(gate) * up
        found[expert] = (tokens.square().sum(0).numpy(), inner.square().sum(0).numpy())
    return found


def module_inputs(experts, sums: dict) -> list:
    """The same of experts that are modules of their own, as in transformers 4."""
    handles = []
    for expert, module in enumerate(experts):
        for child, last in ((module, 0), (next(c for n, c in module.named_children() if n in ("down_proj", "w2")), 1)):

            def note(_, given, key=(expert, last)):
                rows = given[0].detach().double().reshape(-1, given[0].shape[-1])
                sums[key] = sums.get(key, 0) + rows.square().sum(0).numpy()

            handles.append(child.register_forward_pre_hook(note))
    return handles


def naive_expert_masks(folder: Path, share: float, keep: tuple) -> dict[str, np.ndarray]:
    """Masks of the experts of a loaded model whose other layers are not pruned, block by block."""
    import torch
    from safetensors.torch import load_file

    from langslice.demonstrations.tokens import load_prompts

    prompts = load_prompts(folder, {"keep": keep}, max_tokens=512)
    model = load(folder)
    if hasattr(model.config, "_experts_implementation"):
        model.set_experts_implementation("eager")
    stored = load_file(folder / "model.safetensors")
    masks: dict[str, np.ndarray] = {}
    for index, block in enumerate(model.model.layers):
        paths = [path for path, _ in block.named_modules() if path.endswith(".experts")]
        if not paths:
            continue
        experts, sums = block.get_submodule(paths[0]), {}
        merged = hasattr(experts, "gate_up_proj")

        def note(module, given, sums=sums):
            for expert, both in expert_inputs(module, given).items():
                for last in (0, 1):
                    sums[expert, last] = sums.get((expert, last), 0) + both[last]

        handles = [experts.register_forward_pre_hook(note)] if merged else module_inputs(experts, sums)
        for prompt in prompts:
            with torch.no_grad():
                model(**prompt.inputs())
        for handle in handles:
            handle.remove()
        for name in sorted(stored):
            if f".layers.{index}." not in name or ".experts." not in name:
                continue
            number, leaf = name.split(".experts.")[1].split(".")[:2]
            weight = stored[name].double().numpy()
            squares = sums.get((int(number), int(leaf in ("down_proj", "w2"))), np.zeros(weight.shape[1]))
            # An expert that reads nothing is pruned by magnitude.
            masks[name] = lowest(weight, squares if squares.any() else np.ones_like(squares), share)
            with torch.no_grad():
                remove(experts, int(number), leaf, torch.from_numpy(masks[name]))
    return masks


def remove(experts, number: int, leaf: str, mask) -> None:
    if not hasattr(experts, "gate_up_proj"):
        getattr(experts[number], leaf).weight[mask] = 0.0
    elif leaf in ("down_proj", "w2"):
        experts.down_proj[number][mask] = 0.0
    else:
        begin = 0 if leaf in ("gate_proj", "w1") else mask.shape[0]
        experts.gate_up_proj[number, begin : begin + mask.shape[0]][mask] = 0.0


@pytest.mark.parametrize("keep", [KEEP, ONE], ids=["all", "few"])
@pytest.mark.parametrize("model_type", EXPERTS)
def test_masks_of_experts_equal_a_naive_reimplementation(zoo, tmp_path, model_type, keep):
    expected = naive_expert_masks(zoo(model_type), 0.3, keep)
    request = SparsityRequest(0.3, keep_demos=keep, linears=("*.experts.*",))
    done = prune_copy(zoo(model_type), tmp_path / "out", request)
    assert done.tensors.keys() == expected.keys() and len(expected) >= 2 * 4 * 3
    for name, mask in expected.items():
        assert np.array_equal(zeros_of(tmp_path / "out", name), mask), name
    idle = [name for name, tensor in done.tensors.items() if not tensor.reached]
    assert len(idle) < len(expected) / 2
    if model_type == "qwen3_moe":
        assert bool(idle) == (keep == ONE)
    for note in done.notes:
        assert note.startswith("pruned by magnitude, because the calibration data sends no token to them: ")
        assert all(name.rsplit(".", 2)[0] in note for name in idle)
    assert len(done.notes) == bool(idle)


@pytest.mark.parametrize("model_type", EXPERTS)
def test_all_layers_of_a_mixture_are_pruned_but_its_router(zoo, tmp_path, model_type):
    done = prune_copy(zoo(model_type), tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    assert any("attn" in name for name in done.tensors) and any(".experts.3." in name for name in done.tensors)
    assert not any(name.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight")) for name in done.tensors)
    assert load(tmp_path / "out") is not None


@pytest.mark.parametrize("request_", [
    SparsityRequest(pattern="2:4", keep_demos=ONE, score="sparsegpt"),
    SparsityRequest(0.5, keep_demos=ONE, avoid_demos=KEEP),
    SparsityRequest(0.5, keep_demos=KEEP, allocation="outliers"),
    SparsityRequest(0.5, score="magnitude"),
    SparsityRequest(0.5, keep_demos=ONE, score="top"),
], ids=["sparsegpt", "avoid", "outliers", "magnitude", "top"])  # fmt: skip
def test_experts_by_other_scores(zoo, tmp_path, request_):
    done = prune_copy(zoo("qwen3_moe"), tmp_path / "out", request_)
    for name, tensor in done.tensors.items():
        zeros = zeros_of(tmp_path / "out", name)
        assert zeros.sum() == tensor.zeros > 0
        if request_.score == "sparsegpt":
            assert (zeros.reshape(zeros.shape[0], -1, 4).sum(axis=2) == 2).all(), name


def test_one_expert_alone_may_be_pruned_though_few_texts_reach_it(zoo, tmp_path):
    few = tuple(Demonstration("mono", (text,)) for text in ("a", "the", "sing ted"))
    for expert in range(4):
        request = SparsityRequest(0.3, keep_demos=few, linears=(f"*.experts.{expert}.*",))
        assert len(prune_copy(zoo("qwen3_moe"), tmp_path / str(expert), request).tensors) == 3 * 3


def test_an_expert_that_is_missing_is_refused(zoo, tmp_path):
    from safetensors.torch import load_file, save_file

    source = Path(shutil.copytree(zoo("qwen3_moe"), tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.2.up_proj.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"weight model\.layers\.1\.mlp\.experts\.\S+ of the unmodified class has no"
    ):
        prune_copy(source, tmp_path / "out", SparsityRequest(0.3, keep_demos=KEEP))
    assert not (tmp_path / "out").exists()
