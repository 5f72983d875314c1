"""Pruning experts whose matrices lie in one tensor, against a naive reimplementation on the loaded model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import langslice
from langslice.demonstrations import Demonstration, write_demonstrations
from langslice.errors import CheckpointError, Interruption, PlanError, VerificationError
from langslice.sparsity import SparsityRequest, experts, journal, prune_copy
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


@pytest.mark.parametrize("model_type", ["llama4_text", "dbrx"])
def test_patterns_run_along_what_experts_read(tmp_path, model_type):
    source = fused(model_type, tmp_path / "source")
    _, _, _, tensors, swapped = FUSED[model_type]
    for number, request in enumerate((
        SparsityRequest(pattern="2:4", score="magnitude"),
        SparsityRequest(pattern="2:4", score="sparsegpt", keep_demos=ONE),
    )):  # fmt: skip
        done = prune_copy(source, tmp_path / str(number), request)
        found = {name: tensor for name, tensor in done.tensors.items() if tensor.experts}
        assert len(found) == 4 * len(tensors)
        for name in found:
            zeros = zeros_of(tmp_path / str(number), name)
            zeros = zeros.reshape(4, -1, zeros.shape[-1])
            along = zeros.swapaxes(1, 2) if name.endswith(swapped) and swapped else zeros
            assert (along.reshape(*along.shape[:2], -1, 4).sum(axis=3) == 2).all(), name


def test_a_direction_that_the_class_does_not_take_is_refused(tmp_path, monkeypatch):
    source = fused("llama4_text", tmp_path / "source")
    reads_last = experts._reads_last
    monkeypatch.setattr(experts, "_reads_last", lambda *given: not reads_last(*given))
    for request in (SparsityRequest(0.3, keep_demos=ONE), SparsityRequest(pattern="2:4", score="magnitude")):
        with pytest.raises(CheckpointError, match=r"feed_forward\.experts\.\d\.\w+ is multiplied along another"):
            prune_copy(source, tmp_path / "out", request)
    monkeypatch.setattr(experts, "_reads_last", lambda *given: None)
    with pytest.raises(CheckpointError, match="which of its dimensions they read is not known") as refused:
        prune_copy(source, tmp_path / "out", request)
    assert '"!*.experts.*"' in str(refused.value)
    assert not (tmp_path / "out").exists()
    assert prune_copy(
        source, tmp_path / "out", SparsityRequest(0.3, score="magnitude", linears=("!*.experts.*",))
    ).zeros


def test_a_class_that_sends_every_token_to_every_expert_is_refused(tmp_path):
    source = fused("llama4_text", tmp_path / "source")
    document = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**document, "num_experts_per_tok": 4}))
    with pytest.raises(CheckpointError, match="every token runs through every expert at model"):
        prune_copy(source, tmp_path / "out", SparsityRequest(0.3, keep_demos=ONE))
    assert not (tmp_path / "out").exists()


def test_experts_stored_the_other_way_round_are_pruned_alike(tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import CONFIG_MAPPING

    if "qwen3_vl_moe" not in CONFIG_MAPPING or not hasattr(experts, "merged_parts"):
        pytest.skip("this transformers has no such type")
    source = build("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", tmp_path / "source")
    request = SparsityRequest(0.3, keep_demos=KEEP, linears=("*.experts.*",))
    straight = prune_copy(source, tmp_path / "straight", request)
    tensors = load_file(source / "model.safetensors")
    swapped = {name: one.transpose(1, 2).contiguous() for name, one in tensors.items() if ".experts." in name}
    save_file({**tensors, **swapped}, source / "model.safetensors", metadata={"format": "pt"})
    other = prune_copy(source, tmp_path / "swapped", request)
    assert straight.tensors.keys() == other.tensors.keys() == swapped.keys()
    for name in swapped:
        mask = zeros_of(tmp_path / "straight", name)
        assert np.array_equal(zeros_of(tmp_path / "swapped", name).swapaxes(1, 2), mask) and mask.any(), name


def test_an_expert_that_was_left_out_and_differs_is_noticed(tmp_path, monkeypatch):
    source = fused("gpt_oss", tmp_path / "source")
    from langslice.sparsity import main, pruned_copy

    def careless(folder, request, **options):
        done = main.sparsify(folder, request, **options)
        entry = pruned_copy.open_checkpoint(folder).tensors["model.layers.0.mlp.experts.down_proj"]
        with entry.path.open("r+b") as file:
            file.seek(entry.start + 4)
            file.write(b"\1")
        return done

    monkeypatch.setattr(pruned_copy, "sparsify", careless)
    request = SparsityRequest(0.3, score="sparsegpt", keep_demos=ONE, linears=("*.experts.1.down_proj",))
    with pytest.raises(VerificationError, match=r"expert 0 of model\.layers\.0\.mlp\.experts\.down_proj was not to be"):
        prune_copy(source, tmp_path / "out", request)


def test_slice_prunes_experts_that_stay_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    source = fused("gpt_oss", tmp_path / "source")
    demos = tmp_path / "keep.jsonl"
    write_demonstrations(KEEP, demos)
    choice = {
        "sparsity": 0.5,
        "keep_demos": str(demos),
        "linears": ["*.experts.1.*", "*attn*"],
        "drop_experts": "0-3:0",
    }
    applied = journal._apply

    def dying(edits):
        applied(edits[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "_apply", dying)
    with pytest.raises(Interruption):
        langslice.slice(source, tmp_path / "out", **choice)
    monkeypatch.setattr(journal, "_apply", applied)
    langslice.slice(source, tmp_path / "out", **choice)
    done = json.loads((tmp_path / "out/slice.json").read_text())["sparsity"]
    tensor = done["tensors"]["model.layers.2.mlp.experts.down_proj"]
    assert tensor["shape"] == [3, 56, 32] and [one["asked"] for one in tensor["experts"]] == [0, 0.5, 0]
    zeros = zeros_of(tmp_path / "out", "model.layers.2.mlp.experts.down_proj")
    assert zeros.sum(axis=(1, 2)).tolist() == [0, 56 * 32 // 2, 0] and tensor["zeros"] == zeros.sum()
    assert langslice.verify(source, tmp_path / "out").passed


def test_experts_of_attention_are_pruned_whatever_they_are_called(tmp_path):
    from transformers import CONFIG_MAPPING

    if "jetmoe" not in CONFIG_MAPPING:
        pytest.skip("this transformers has no such type")
    source = build("jetmoe", "JetMoeForCausalLM", tmp_path / "source", tokens=131)
    done = prune_copy(source, tmp_path / "out", SparsityRequest(pattern="2:4", score="magnitude"))
    found = [name for name, tensor in done.tensors.items() if len(tensor.experts) == 4]
    assert {name.rpartition("layers.0.")[2] for name in found if ".0." in name} == {
        f"{place}.{leaf}_linear.weight" for place in ("mlp", "self_attention.experts") for leaf in ("input", "output")
    }
    for name in found:
        zeros = zeros_of(tmp_path / "out", name)
        assert (zeros.reshape(*zeros.shape[:2], -1, 4).sum(axis=3) == 2).all(), name
    with pytest.raises(PlanError, match="counts experts of its attention, too"):
        langslice.plan(source, drop_experts="0-3:1")
