"""Pruning experts whose matrices lie in one tensor, against a naive reimplementation on the loaded model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from langslice.demonstrations import Demonstration
from langslice.sparsity import SparsityRequest, prune_copy
from tests.families.tiny import build
from tests.sparsity.test_layouts import expert_inputs, lowest
from tests.sparsity.test_sparsify import KEEP, load, zeros_of

ONE = (Demonstration("mono", ("a",)),)  # too short to reach every expert
GATED = {"gate_up_proj": ("gate_up_proj", 0), "down_proj": ("down_proj", 1)}
# Model type -> class, module of a block that is called with what its router chose, how it is called there and on disk, and for
# each tensor on disk the parameter, and whether it reads what the expert was sent (0) or what it makes of that (1); last,
# tensors whose experts hold (inputs, outputs).
FUSED = {
    "gpt_oss": ("GptOssForCausalLM", "mlp.experts", "mlp.experts", GATED, ("gate_up_proj", "down_proj")),
    "llama4_text": ("Llama4ForCausalLM", "feed_forward", "feed_forward.experts", GATED, ("gate_up_proj", "down_proj")),
    "qwen3_5_moe_text": ("Qwen3_5MoeForCausalLM", "mlp.experts", "mlp.experts", GATED, ()),
    "granitemoe": (
        "GraniteMoeForCausalLM", "block_sparse_moe.experts", "block_sparse_moe",
        {"input_linear.weight": ("gate_up_proj", 0), "output_linear.weight": ("down_proj", 1)}, (),
    ),
    "dbrx": (
        "DbrxForCausalLM", "ffn.experts", "ffn.experts.mlp",
        {"w1": ("mlp.w1", 0), "v1": ("mlp.v1", 0), "w2": ("mlp.w2", 1)}, ("w2",),
    ),
}  # fmt: skip


def fused(model_type: str, folder: Path) -> Path:
    """A tiny checkpoint whose experts lie in one tensor on disk."""
    transformers = pytest.importorskip("transformers")
    if model_type not in transformers.CONFIG_MAPPING or not hasattr(transformers, FUSED[model_type][0]):
        pytest.skip("this transformers has no such type")
    if not hasattr(transformers.PreTrainedModel, "set_experts_implementation"):
        pytest.skip("this transformers computes experts in another way")
    source = build(model_type, FUSED[model_type][0], folder)
    if model_type == "qwen3_5_moe_text":
        stack(source, 4)
    return source


def stack(source: Path, experts: int) -> None:
    """Put matrices that are saved one by one into one tensor for each layer, as published checkpoints of the type have them."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    places = {name.split("0.gate_proj")[0] for name in tensors if name.endswith(".experts.0.gate_proj.weight")}
    assert places
    for stem in places:
        gate, up, down = (
            [tensors.pop(f"{stem}{e}.{leaf}_proj.weight") for e in range(experts)] for leaf in ("gate", "up", "down")
        )
        both = [torch.cat(pair) for pair in zip(gate, up, strict=True)]
        tensors[f"{stem}gate_up_proj"], tensors[f"{stem}down_proj"] = torch.stack(both), torch.stack(down)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})


def sent(model_type: str, module, given: tuple) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Sums of squares of what each expert reads, and of what its last matrix reads, from the router's choice alone."""
    import torch

    if model_type in ("qwen3_5_moe_text", "granitemoe"):
        return expert_inputs(module, given)
    hidden = given[0].detach().double().reshape(-1, given[0].shape[-1])
    found = {}
    if model_type == "llama4_text":
        scores, chosen = (hidden @ module.router.weight.double().T).topk(module.top_k, dim=-1)
        for expert in range(module.num_experts):
            weights = torch.sigmoid(scores[chosen == expert])[:, None]  # the token is weighed before it is sent
            tokens = hidden[(chosen == expert).any(dim=-1)] * weights
            gate, up = (tokens @ module.experts.gate_up_proj[expert].double()).chunk(2, dim=-1)
            found[expert] = (tokens, up * torch.nn.functional.silu(gate))
    elif model_type == "gpt_oss":
        for expert in range(module.num_experts):
            tokens = hidden[(given[1] == expert).any(dim=-1)]
            both = tokens @ module.gate_up_proj[expert].double() + module.gate_up_proj_bias[expert].double()
            gate, up = both[:, 0::2].clamp(max=module.limit), both[:, 1::2].clamp(-module.limit, module.limit)
            found[expert] = (tokens, (up + 1) * gate * torch.sigmoid(1.702 * gate))
    else:
        for expert in range(module.num_experts):
            tokens = hidden[(given[1] == expert).any(dim=-1)]
            rows = slice(expert * module.ffn_hidden_size, (expert + 1) * module.ffn_hidden_size)
            gate, up = (tokens @ weight[rows].double().T for weight in (module.mlp.w1, module.mlp.v1))
            found[expert] = (tokens, torch.nn.functional.silu(gate) * up)
    return {expert: tuple(x.detach().square().sum(0).numpy() for x in both) for expert, both in found.items()}


def naive_masks(model_type: str, folder: Path, share: float, keep: tuple) -> dict[str, np.ndarray]:
    """Masks of the experts of a loaded model whose other layers are not pruned: block by block, expert by expert, row by row."""
    import torch

    from langslice.demonstrations.tokens import load_prompts

    _, called, stem, tensors, swapped = FUSED[model_type]
    prompts = load_prompts(folder, {"keep": keep}, max_tokens=512)
    model = load(folder)
    model.set_experts_implementation("eager")
    place, blocks = next(
        (name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)
    )
    masks: dict[str, np.ndarray] = {}
    for index, block in enumerate(blocks):
        sums: dict[tuple[int, int], np.ndarray] = {}

        def note(module, given, sums=sums):
            for expert, both in sent(model_type, module, given).items():
                for last in (0, 1):
                    sums[expert, last] = sums.get((expert, last), 0) + both[last]

        handle = block.get_submodule(called).register_forward_pre_hook(note)
        for prompt in prompts:
            with torch.no_grad():
                model(**prompt.inputs())
        handle.remove()
        for leaf, (path, last) in tensors.items():
            owner = block.get_submodule(called if model_type != "llama4_text" else stem)
            parameter = owner.get_parameter(path)
            whole = parameter.detach().double().numpy().reshape(4, -1, parameter.shape[-1])
            mask = np.zeros(whole.shape, dtype=bool)
            for expert in range(4):
                weight = whole[expert].T if leaf in swapped else whole[expert]
                squares = sums[expert, last]
                one = lowest(weight, squares if squares.any() else np.ones(weight.shape[1]), share)
                mask[expert] = one.T if leaf in swapped else one
            masks[f"{place}.{index}.{stem}.{leaf}"] = mask.reshape(parameter.shape)
            with torch.no_grad():
                parameter[torch.from_numpy(mask.reshape(parameter.shape))] = 0.0
    return masks


@pytest.mark.parametrize("model_type", FUSED)
def test_masks_of_experts_in_one_tensor_equal_a_naive_reimplementation(tmp_path, model_type):
    source = fused(model_type, tmp_path / "source")
    for number, keep in enumerate((KEEP, ONE) if model_type == "gpt_oss" else (KEEP,)):
        expected = naive_masks(model_type, source, 0.3, keep)
        request = SparsityRequest(0.3, keep_demos=keep, linears=("*.experts.*",))
        done = prune_copy(source, tmp_path / f"out{number}", request)
        assert {name for name, tensor in done.tensors.items() if tensor.experts} == expected.keys() and expected
        for name, mask in expected.items():
            assert np.array_equal(zeros_of(tmp_path / f"out{number}", name), mask), name
            tensor = done.tensors[name]
            assert [one.expert for one in tensor.experts] == [0, 1, 2, 3]
            assert [one.zeros for one in tensor.experts] == mask.reshape(4, -1).sum(axis=1).tolist()
            assert tensor.zeros == mask.sum() and tensor.size == mask.size and tensor.asked == pytest.approx(0.3)
    if model_type == "gpt_oss":
        idle = [
            (name, one.expert) for name, tensor in done.tensors.items() for one in tensor.experts if not one.reached
        ]
        assert idle and len(done.notes) == 1
        assert all(f"{name.rpartition('.')[0]}.{expert}" in done.notes[0] for name, expert in idle)
    assert load(tmp_path / "out0") is not None
